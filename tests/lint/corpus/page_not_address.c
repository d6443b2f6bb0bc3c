/* page-not-address: the unmaps of temporary windows take the address, not the page. */

/* ---- wrong ---- */

static int dent_init(struct page *page, u32 ino)
{
	struct dent *d = kmap_atomic(page);

	d->ino = cpu_to_le32(ino);
	kunmap_atomic(page); /* expect: page-not-address */
	return 0;
}

static void strip_zero(struct page *page, unsigned int from)
{
	char *p = kmap_local_page(page);

	memset(p + from, 0, 128);
	kunmap_local(page); /* expect: page-not-address */
}

static void sg_poke(struct scatterlist *sg, u8 value)
{
	u8 *buf = kmap_atomic(sg_page(sg)) + sg->offset;

	buf[0] = value;
	kunmap_atomic(sg_page(sg)); /* expect: page-not-address */
}

static int dump_words(struct seq_file *m, struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		u32 *w = kmap_atomic(pages[i]);

		seq_printf(m, "%08x\n", w[0]);
		kunmap_atomic(pages[i]); /* expect: page-not-address */
	}
	return 0;
}

static void slot_store(struct slot *s, const void *src)
{
	s->addr = kmap_local_page(s->page);
	memcpy(s->addr, src, 64);
	kunmap_local(s->page); /* expect: page-not-address */
	s->addr = NULL;
}

static int typed_era(struct page *page, void *to)
{
	void *from = kmap_atomic(page, KM_USER0);

	memcpy(to, from, PAGE_SIZE);
	kunmap_atomic(page, KM_USER0); /* expect: page-not-address */
	return PAGE_SIZE;
}

static u64 frag_first(const skb_frag_t *frag)
{
	u8 *vaddr = kmap_atomic(skb_frag_page(frag));
	u64 v = get_unaligned((u64 *)(vaddr + skb_frag_off(frag)));

	kunmap_atomic(skb_frag_page(frag)); /* expect: page-not-address */
	return v;
}

static void dead_branch(struct page *page, size_t off, size_t len)
{
	void *kaddr;

	if (PageHighMem(page))
		kaddr = kmap_local_page(page);
	else
		kaddr = page_address(page);
	sanitize(kaddr + off, len);
	if (PageHighMem(page))
		kunmap_local(page); /* expect: page-not-address */
}

static int half_converted(struct page *page, struct inode *inode)
{
	char *text = kmap_atomic(page);

	if (i_size_read(inode) > PAGE_SIZE) {
		kunmap_atomic(text);
		return -EFBIG;
	}
	text[i_size_read(inode)] = 0;
	kunmap_atomic(page); /* expect: page-not-address */
	return 0;
}

static void cast_hides_it(struct page *page, const u8 *key)
{
	u8 *p = kmap_local_page(page);

	memcpy(p, key, 32);
	kunmap_local((void *)page); /* expect: page-not-address */
}

static void vec_fill(struct bio_vec *bv, int byte)
{
	char *to = bvec_kmap_local(bv);

	memset(to, byte, min_t(unsigned int, bv->bv_len, 16));
	kunmap_local(bv->bv_page); /* expect: page-not-address */
}

/* ---- right ---- */

static void by_address(struct page *page, unsigned int from)
{
	char *p = kmap_local_page(page);

	memset(p + from, 0, 128);
	kunmap_local(p);
}

static int both_families(struct page *page, bool atomic, u32 *out)
{
	u32 *p;

	if (atomic)
		p = kmap_atomic(page);
	else
		p = kmap(page);
	*out = p[0];
	if (atomic)
		kunmap_atomic(p);
	else
		kunmap(page);
	return 0;
}

static void name_misleads(struct holder *h)
{
	char *page = kmap_atomic(h->backing);

	page[0] = 'x';
	kunmap_atomic(page);
}

static int through_integer(struct page *page, unsigned long off)
{
	unsigned long addr = (unsigned long)kmap_atomic(page);
	int v = *(int *)(addr + off);

	kunmap_atomic((void *)addr);
	return v;
}

static void back_to_base(struct scatterlist *sg, u8 value)
{
	u8 *buf = kmap_atomic(sg_page(sg)) + sg->offset;

	buf[0] = value;
	kunmap_atomic(buf - sg->offset);
}

static void inside_the_page(struct scatterlist *sg, u8 value)
{
	u8 *buf = kmap_atomic(sg_page(sg)) + sg->offset;

	buf[0] = value;
	kunmap_atomic(buf);
}

static void element_address(struct page *page, unsigned int n)
{
	struct rec *recs = kmap_local_page(page);
	struct rec *r = &recs[n % RECS_PER_PAGE];

	r->used = 1;
	kunmap_local(r);
}

static void field_of_struct(struct slot *s, const void *src)
{
	s->addr = kmap_local_page(s->page);
	memcpy(s->addr, src, 64);
	kunmap_local(s->addr);
	s->addr = NULL;
}

static void masked(struct page *page, unsigned long off)
{
	unsigned long at = (unsigned long)kmap_local_page(page) + off;

	*(u8 *)at = 0;
	kunmap_local((void *)(at & PAGE_MASK));
}

static void page_variable_reused(struct page *page)
{
	void *p = page;

	get_page(page);
	p = kmap_local_page(p);
	memset(p, 0, 16);
	kunmap_local(p);
	put_page(page);
}

static void vec_fill_right(struct bio_vec *bv, int byte)
{
	char *to = bvec_kmap_local(bv);

	memset(to, byte, min_t(unsigned int, bv->bv_len, 16));
	kunmap_local(to);
}
