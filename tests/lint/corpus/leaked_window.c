/* leaked-window: a window that some path out of the function does not close. */

/* ---- wrong ---- */

static int relay_copy_in(struct relay *r, struct page *page, const void *src, size_t len)
{
	char *to = kmap_local_page(page);

	if (r->closing)
		return -ESHUTDOWN; /* expect: leaked-window */
	memcpy(to, src, min_t(size_t, len, PAGE_SIZE));
	kunmap_local(to);
	return 0;
}

static int spool_verify(struct spool *sp, struct page *page)
{
	struct spool_hdr *hdr;
	int err = 0;

	hdr = kmap_atomic(page);
	if (hdr->magic != SPOOL_MAGIC) {
		err = -EUCLEAN;
		goto bad; /* expect: leaked-window */
	}
	sp->seq = hdr->seq;
	kunmap_atomic(hdr);
	return 0;
bad:
	sp->errors++;
	return err;
}

static struct tag_entry *tagfs_scan(struct inode *dir, unsigned long npages, u32 want)
{
	struct tag_entry *found = NULL;
	unsigned long n;

	for (n = 0; n < npages; n++) {
		struct page *page = tagfs_page(dir, n);
		struct tag_entry *e = kmap_local_page(page); /* expect: leaked-window */

		if (e->tag == want) {
			dir->i_private = (void *)n;
			break;
		}
		kunmap_local(e);
	}
	pr_debug("tagfs: looked at %lu pages\n", n);
	return found;
}

static unsigned int pool_sum(struct page **pages, int nr)
{
	unsigned int sum = 0;
	int i;

	for (i = 0; i < nr; i++) {
		u32 *word = kmap_atomic(pages[i]); /* expect: leaked-window */

		if (!word[0])
			continue;
		sum += word[0];
		kunmap_atomic(word);
	}
	return sum;
}

static void ring_wipe(struct ring *ring)
{
	memset(kmap(ring->page), 0, PAGE_SIZE); /* expect: leaked-window */
	ring->head = 0;
	ring->tail = 0;
}

static int frame_pair_xor(struct page *a, struct page *b, u8 *out)
{
	u8 *p;
	int i;

	p = kmap_local_page(a);
	memcpy(out, p, 64);
	p = kmap_local_page(b); /* expect: leaked-window */
	for (i = 0; i < 64; i++)
		out[i] ^= p[i];
	kunmap_local(p);
	return 0;
}

static int splitter_clone(struct splitter *s, struct page *from)
{
	struct page *copy;
	void *src, *dst;

	src = kmap_local_page(from);
	copy = alloc_page(GFP_KERNEL);
	if (!copy)
		return -ENOMEM; /* expect: leaked-window */
	dst = kmap_local_page(copy);
	copy_page(dst, src);
	kunmap_local(dst);
	kunmap_local(src);
	s->copy = copy;
	return 0;
}

static int opcode_run(struct vmach *vm, struct page *page)
{
	u8 *code = kmap_atomic(page);
	int ret;

	switch (code[vm->pc]) {
	case OP_NOP:
		ret = 0;
		break;
	case OP_HALT:
		ret = 1;
		break;
	default:
		return -EILSEQ; /* expect: leaked-window */
	}
	kunmap_atomic(code);
	return ret;
}

static int lease_read(struct lease *l, struct page *page)
{
	struct lease_disk *d = kmap(page);

	if (d->version > LEASE_VERSION) {
		kunmap(page);
		return -EPROTONOSUPPORT;
	}
	if (d->owner != l->owner) {
		kunmap(page);
		return -EACCES;
	}
	l->until = le64_to_cpu(d->until);
	return 0; /* expect: leaked-window */
}

static int bitmap_note(struct bmap *map, struct page *page, unsigned int bit)
{
	(void)kmap(page); /* expect: leaked-window */
	set_bit(bit, page_address(page));
	SetPageDirty(page);
	return map->free--;
}

static int chap_check(struct chap *c, struct page *page)
{
	u8 *resp = kmap_local_page(page);
	struct crypto_shash *tfm;

	tfm = crypto_alloc_shash("md5", 0, 0);
	if (IS_ERR(tfm))
		return PTR_ERR(tfm); /* expect: leaked-window */
	c->ok = !memcmp(resp, c->expected, 16);
	kunmap_local(resp);
	crypto_free_shash(tfm);
	return c->ok ? 0 : -EKEYREJECTED;
}

static int volume_label(struct volume *v, struct folio *folio, char *out)
{
	char *label;
	int len;

	label = kmap_local_folio(folio, 64);
	len = strnlen(label, 16);
	if (len == 16) {
		v->flags |= VOL_NO_LABEL;
		return -ENAMETOOLONG; /* expect: leaked-window */
	}
	memcpy(out, label, len);
	kunmap_local(label);
	return len;
}

static int cask_drain(struct cask *cask, struct page *page)
{
	u32 *at = NULL;
	int i;

	for (i = 2; i > 0; i--) {
		if (at)
			kunmap_local(at);
		at = i > 1 ? kmap_local_page(page) : NULL;
		if (cask->seed == i)
			break;
	}
	return 0; /* expect: leaked-window */
}

/* ---- right ---- */

static int ladder_setup(struct ladder *l, struct page *page, struct page *spare)
{
	void *a, *b;
	int err = -EIO;

	a = kmap_local_page(page);
	if (l->dead)
		goto out_a;
	b = kmap_local_page(spare);
	if (memcmp(a, b, 16))
		goto out_b;
	err = 0;
out_b:
	kunmap_local(b);
out_a:
	kunmap_local(a);
	return err;
}

static int mirror_write(struct mirror *m, struct page *page, bool direct)
{
	void *addr = NULL;
	int err;

	if (!direct)
		addr = kmap_local_page(page);
	err = mirror_send(m, direct ? m->dma : addr);
	if (!direct)
		kunmap_local(addr);
	return err;
}

static void *slate_map(struct slate *s, unsigned long index)
{
	struct page *page = s->pages[index];

	get_page(page);
	return kmap_local_page(page);
}

static int walk_open(struct walk *w, struct page *page)
{
	w->page = page;
	w->addr = kmap(page);
	w->pos = 0;
	return w->addr ? 0 : -ENOMEM;
}

static void walk_close(struct walk *w)
{
	if (w->addr)
		kunmap(w->page);
	w->addr = NULL;
}

static int depot_find(struct page **pages, int nr, u64 key)
{
	int i, at = -ENOENT;

	for (i = 0; i < nr; i++) {
		u64 *slot = kmap_atomic(pages[i]);
		u64 got = *slot;

		kunmap_atomic(slot);
		if (got == key) {
			at = i;
			break;
		}
	}
	return at;
}

static int guard_copy(struct page *page, const struct guard *g, void *to)
{
	void *from = NULL;
	int err = -EINVAL;

	if (!g->len)
		goto out;
	from = kmap_atomic(page);
	if (g->crc != crc32_le(0, from, 32))
		goto out;
	memcpy(to, from, 32);
	err = 0;
out:
	if (from)
		kunmap_atomic(from);
	return err;
}

static int argv_fill(struct argset *set, const char *text, unsigned long pos, int len)
{
	struct page *held = NULL;
	char *kaddr = NULL;

	while (len > 0) {
		struct page *page = argset_page(set, pos);

		if (page != held) {
			if (held)
				kunmap(held);
			held = page;
			kaddr = kmap(held);
		}
		kaddr[pos % PAGE_SIZE] = *text++;
		pos++;
		len--;
	}
	if (held)
		kunmap(held);
	return 0;
}

static int manifest_load(struct address_space *mapping, struct manifest *m)
{
	struct page *page = read_mapping_page(mapping, 0, NULL);
	struct manifest_disk *d;

	if (IS_ERR(page))
		return PTR_ERR(page);
	d = kmap_local_page(page);
	m->count = le32_to_cpu(d->count);
	kunmap_local(d);
	put_page(page);
	return 0;
}

static void note_finish(struct page *page, void *addr, bool dirty)
{
	kunmap_local(addr);
	if (dirty)
		set_page_dirty(page);
	put_page(page);
}

static int note_append(struct notes *n, struct page *page, u16 id)
{
	u16 *slot = kmap_local_page(page);

	if (slot[0] == NOTE_FULL) {
		note_finish(page, slot, false);
		return -ENOSPC;
	}
	slot[++slot[0]] = id;
	note_finish(page, slot, true);
	n->total++;
	return 0;
}

static int probe_once(struct probe *p, struct page *page)
{
	u32 *reg = kmap_atomic(page);
	int ret = -ENODEV;

	do {
		if (reg[0] != p->id)
			break;
		if (reg[1] & PROBE_BUSY)
			break;
		ret = 0;
	} while (0);
	kunmap_atomic(reg);
	return ret;
}

static int token_kind(struct page *page)
{
	char *text = kmap_local_page(page);
	int kind = 0;

	switch (text[0]) {
	case '#':
		kind = TOKEN_COMMENT;
		break;
	case '"':
		kind |= TOKEN_QUOTED;
		fallthrough;
	case '\'':
		kind |= TOKEN_STRING;
		break;
	default:
		kind = TOKEN_WORD;
	}
	kunmap_local(text);
	return kind;
}

static size_t stride_copy(struct page **pages, u8 *to, size_t len)
{
	size_t done = 0;

	while (done < len) {
		size_t part = min_t(size_t, len - done, PAGE_SIZE);
		void *from = kmap_local_page(pages[done >> PAGE_SHIFT]);

		memcpy(to + done, from, part);
		kunmap_local(from);
		done += part;
		if (fatal_signal_pending(current))
			return done;
	}
	return done;
}

static int ledger_entry_get(struct ledger *ledger, u64 nr, struct ledger_entry **entry,
			    struct buffer_head **bhp)
{
	struct buffer_head *bh;
	void *base;
	int err;

	err = ledger_entry_block(ledger, nr, &bh);
	if (err)
		return err;
	base = kmap(bh->b_page);
	if (ledger_entry_is_blank(base, nr)) {
		kunmap(bh->b_page);
		brelse(bh);
		return -ENOENT;
	}
	if (entry)
		*entry = ledger_entry_of(base, nr);
	*bhp = bh;
	trace_ledger(nr);
	return 0;
}

static void shuttle_map_next(struct shuttle *sh)
{
	struct page *next = nth_page(sh->cargo.page, 1);

	sh->second = kmap(next);
	sh->spans = true;
}

static void shuttle_step(struct shuttle *sh)
{
	if (sh->left) {
		shuttle_map_next(sh);
		return;
	}
	if (sh->spans)
		kunmap(nth_page(sh->cargo.page, 1));
	if (sh->cargo.page)
		kunmap(sh->cargo.page);
}

static void ferry_unload(struct kvec *vec, unsigned long mapped, int count)
{
	int i;

	for (i = count - 1; i >= 0; i--) {
		unsigned long at = (unsigned long)vec[i].iov_base;

		if (mapped & BIT(i))
			kunmap_local((void *)(at & PAGE_MASK));
	}
}

static int ferry_cross(struct ferry *ferry, struct page *head, struct page *tail, int from)
{
	struct kvec vec[2];
	int err;

	vec[0].iov_base = kmap_local_page(head) + from;
	vec[1].iov_base = kmap_local_page(tail);
	err = ferry_row(ferry, vec, 2);
	ferry_unload(vec, 3, 2);
	return err;
}

static void tally_pretend(void)
{
	/* An unmap that follows elsewhere needs a map to balance it. */
	(void) kmap_atomic(ZERO_PAGE(0));
}

static void coop_free_nests(struct nest **nests)
{
	while (*nests) {
		struct page *page = (struct page *)*nests;
		struct nest *nest = kmap(page);
		int i;

		for (i = 0; i < NESTS_PER_PAGE; i++) {
			egg_put(nest->egg);
			nest = nest->next;
		}
		kunmap(page);
		*nests = nest;
	}
}

static int leaf_find(struct mm_struct *mm, unsigned long at, pte_t **leaf, spinlock_t **lock)
{
	pmd_t *pmd = leaf_branch(mm, at);
	pte_t *pte;

	if (!pmd)
		return -EINVAL;
	pte = pte_offset_map_lock(mm, pmd, at, lock);
	if (!pte_present(*pte)) {
		pte_unmap_unlock(pte, *lock);
		return -EINVAL;
	}
	*leaf = pte;
	return 0;
}

static int leaf_find_or_fail(struct mm_struct *mm, unsigned long at, pte_t **leaf, spinlock_t **lock)
{
	int res;

	res = leaf_find(mm, at, leaf, lock);
	return res;
}

static int leaf_pfn(struct mm_struct *mm, unsigned long at, unsigned long *pfn)
{
	spinlock_t *lock;
	pte_t *pte;
	int err = leaf_find_or_fail(mm, at, &pte, &lock);

	if (err)
		return err;
	*pfn = pte_pfn(*pte);
	pte_unmap_unlock(pte, lock);
	return 0;
}

static void crate_drop(struct crate *crate, int n)
{
	if (crate->slots[n].address)
		kunmap(crate->slots[n].page);
	__free_page(crate->slots[n].page);
}

static int crate_fill(struct crate *crate, const void __user *from, size_t len)
{
	struct page *page = alloc_page(GFP_HIGHUSER);
	void *to;

	if (!page)
		return -ENOMEM;
	to = kmap(page);
	if (crate_copy(to, from, len)) {
		kunmap(page);
		__free_page(page);
		return -EFAULT;
	}
	crate_keep(crate, 1, len, page, to);
	return 0;
}

static void trough_pour(struct scatterlist *from, struct scatterlist *to, int nr)
{
	void *into = kmap_atomic(sg_page(to));
	struct scatterlist *sg;
	int i;

	for_each_sg(from, sg, nr, i) {
		unsigned int left = sg->length;
		void *out = kmap_atomic(sg_page(sg));

		while (left) {
			left -= trough_move(into, out, left);
			if (!left)
				kunmap_atomic(out);
		}
	}
	kunmap_atomic(into);
}

static unsigned int ladle_map(struct bowl *bowl, struct kvec *vec, u32 from, u32 left)
{
	struct scatterlist *sg = &bowl->sg[from / PAGE_SIZE];
	unsigned int i = 0;

	bowl->first = sg;
	while (left) {
		vec[i].iov_base = kmap(sg_page(sg)) + sg->offset;
		left -= sg->length;
		sg = sg_next(sg);
		i++;
	}
	bowl->mapped = i;
	return i;
}

static int ladle_serve(struct bowl *bowl, u32 from, u32 length)
{
	int count = ladle_map(bowl, bowl->vec, from, length);

	if (count < 0)
		return -1;
	ladle_send(bowl, count);
	ladle_unmap(bowl);
	return 0;
}

static void sluice_close(struct sluice *sluice, struct page **pages)
{
	u32 *at;
	int level;

	for (level = 0; level <= 3; level++) {
		at = kmap_atomic(pages[level]);
		if (at[0] == sluice->last)
			break;
		kunmap_atomic(at);
	}
	switch (level) {
	case 0:
	case 1:
		sluice_drain(sluice);
		kunmap_atomic(at);
		break;
	case 2:
		kunmap_atomic(at);
		break;
	case 3:
		kunmap_atomic(at);
		break;
	default:
		break;
	}
}

static struct leaf_entry *leaf_next(struct leaf_entry *at)
{
	return (struct leaf_entry *)((char *)at +
				     le16_to_cpu(at->length));
}

static struct leaf_entry *leaf_second(struct inode *dir, struct page **page)
{
	struct leaf_entry *at;

	*page = leaf_page(dir);
	at = kmap_local_page(*page);
	return leaf_next(at);
}

static void gauge_clear(struct mm_struct *mm, unsigned long from, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		spinlock_t *lock;
		pte_t *pte = get_locked_pte(mm, from + (i << PAGE_SHIFT), &lock);

		if (!WARN_ON_ONCE(!pte)) {
			pte_clear(mm, from, pte);
			pte_unmap_unlock(pte, lock);
		}
	}
}
