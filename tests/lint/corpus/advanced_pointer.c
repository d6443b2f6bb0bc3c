/* advanced-pointer: what the unmap is given may have left the page. */

/* ---- wrong ---- */

static void words_clear(struct page *page, unsigned int n)
{
	u32 *p = kmap_atomic(page);

	while (n--)
		*p++ = 0;
	kunmap_atomic(p); /* expect: advanced-pointer */
}

static int entries_count(struct page *page)
{
	struct entry *e = kmap_local_page(page);
	int i, used = 0;

	for (i = 0; i < PAGE_SIZE / sizeof(*e); i++, e++)
		if (e->used)
			used++;
	kunmap_local(e); /* expect: advanced-pointer */
	return used;
}

static void scatter(struct scatterlist *sg, int nents, const u8 *from)
{
	struct scatterlist *s;
	int i;

	for_each_sg(sg, s, nents, i) {
		u8 *to = kmap_atomic(sg_page(s)) + s->offset;

		memcpy(to, from, s->length); /* may: page-overrun */
		to += s->length;
		from += s->length;
		kunmap_atomic(to); /* expect: advanced-pointer */
	}
}

static unsigned int table_drop(pmd_t *pmd, unsigned long addr, unsigned long end)
{
	pte_t *pte = pte_offset_map(pmd, addr);
	unsigned int n = 0;

	do {
		if (pte_present(*pte))
			n++;
	} while (pte++, addr += PAGE_SIZE, addr != end);
	pte_unmap(pte); /* expect: advanced-pointer */
	return n;
}

static int verify_blocks(struct page *page, unsigned int len, unsigned int size)
{
	void *data = kmap_atomic(page);
	unsigned int done;
	int bad = 0;

	for (done = 0; done < len; done += size) {
		if (block_bad(data, size))
			bad++;
		data += size;
	}
	kunmap_atomic(data); /* expect: advanced-pointer */
	return bad;
}

static void put_chars(struct page *page, const char *text)
{
	char *to = kmap_local_page(page);

	while (*text)
		*to++ = *text++;
	kunmap_local(to); /* expect: advanced-pointer */
}

static void skip_whole(struct page *page)
{
	u8 *p = kmap_local_page(page);

	clear_page(p);
	p += PAGE_SIZE;
	kunmap_local(p); /* expect: advanced-pointer */
}

static u64 sum_quads(struct page *page)
{
	u64 *q = kmap_atomic(page);
	u64 *end = q + PAGE_SIZE / sizeof(*q);
	u64 sum = 0;

	while (q < end)
		sum += *q++;
	kunmap_atomic(q); /* expect: advanced-pointer */
	return sum;
}

static void drain_fifo(void __iomem *port, struct page *page, size_t len)
{
	u32 *buf = kmap_atomic(page);

	for (; len >= 4; len -= 4) {
		*buf = readl(port);
		buf += 1;
	}
	kunmap_atomic(buf); /* expect: advanced-pointer */
}

static void guard_tags(struct page *page, int sectors)
{
	struct tuple *t = kmap_atomic(page);

	for (; sectors; sectors--, t++)
		t->guard = 0;
	kunmap_atomic(t); /* expect: advanced-pointer */
}

static int copy_lines(struct page *page, const u8 *from, int lines)
{
	u8 *to = kmap_local_page(page);
	int n;

	for (n = 0; n < lines; n++) {
		memcpy(to, from, 64);
		to = to + 64;
		from += 64;
	}
	kunmap_local(to); /* expect: advanced-pointer */
	return n;
}

/* ---- right ---- */

static void words_clear_base(struct page *page, unsigned int n)
{
	u32 *base = kmap_atomic(page);
	u32 *p = base;

	while (n--)
		*p++ = 0;
	kunmap_atomic(base);
}

static void step_back(pmd_t *pmd, unsigned long addr, unsigned long end)
{
	pte_t *pte = pte_offset_map(pmd, addr);

	do {
		touch_pte(pte);
	} while (pte++, addr += PAGE_SIZE, addr != end);
	pte_unmap(pte - 1);
}

static void offset_once(struct page *page, unsigned int offset, const void *src)
{
	char *p = kmap_atomic(page);

	p += offset_in_page(offset);
	memcpy(p, src, 4);
	kunmap_atomic(p);
}

static void small_constant(struct page *page)
{
	u8 *p = kmap_local_page(page);

	p += 16;
	p[0] = 1;
	kunmap_local(p);
}

static void undone(struct scatterlist *sg, const u8 *from)
{
	u8 *to = kmap_atomic(sg_page(sg)) + sg->offset;

	memcpy(to, from, 4);
	kunmap_atomic(to - sg->offset);
}

static void by_page_family(struct page *page, const char *text)
{
	char *to = kmap(page);

	while (*text)
		*to++ = *text++;
	kunmap(page);
}

static void header_skipped(struct page *page, struct meta *m)
{
	struct head *h = kmap_local_page(page);
	struct body *b = (struct body *)(h + 1);

	m->kind = b->kind;
	kunmap_local(h);
}

static u64 sum_indexed(struct page *page)
{
	u64 *q = kmap_atomic(page);
	u64 sum = 0;
	int i;

	for (i = 0; i < PAGE_SIZE / sizeof(*q); i++)
		sum += q[i];
	kunmap_atomic(q);
	return sum;
}

static int find_entry(struct page *page, u32 want)
{
	struct entry *start = kmap_local_page(page);
	struct entry *e;

	for (e = start; e < start + 8; e++)
		if (e->id == want)
			break;
	kunmap_local(start);
	return e - start;
}

static void mapped_each_time(struct page **pages, int nr)
{
	u8 *p;
	int i;

	for (i = 0; i < nr; i++) {
		p = kmap_atomic(pages[i]);
		p += 8;
		*p = i;
		kunmap_atomic(p);
	}
}

static void other_pointer_moves(struct page *page, u8 *out, int n)
{
	u8 *p = kmap_local_page(page);
	int i;

	for (i = 0; i < n; i++)
		*out++ = p[i];
	kunmap_local(p);
}

static int shelf_gather(struct shelf *shelf, unsigned long from, unsigned long to)
{
	spinlock_t *lock;
	pte_t *pte = shelf_locked_entry(shelf, from, &lock);
	int found = 0;

	pte = pte_offset_map_lock(shelf->mm, shelf->pmd, from, &lock);
	while (from < to) {
		pte++;
		if (!pte_present(*pte))
			break;
		found++;
		from += PAGE_SIZE;
	}
	pte_unmap_unlock(pte, lock);
	return found;
}

static void shelf_link(struct page *page, unsigned int off, unsigned int step)
{
	struct slot_link *link = kmap_atomic(page);

	while ((off += step) < PAGE_SIZE) {
		link->next = off;
		link++;
	}
	link->next = 0;
	kunmap_atomic(link);
}

static void shelf_find(struct shelf *shelf, struct page *page, unsigned long n)
{
	char *limit = kmap_local_page(page);
	char *one = limit;

	limit += shelf_last_byte(shelf, n) - SHELF_SIZE;
	while (one <= limit && !shelf_is(shelf, one))
		one += SHELF_SIZE;
	kunmap_local(limit);
}
