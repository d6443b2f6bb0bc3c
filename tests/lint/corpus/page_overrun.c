/* page-overrun: one map call shows one page. */

/* ---- wrong ---- */

static void wipe_two(struct page *page)
{
	void *p = kmap_local_page(page);

	memset(p, 0, 2 * PAGE_SIZE); /* expect: page-overrun */
	kunmap_local(p);
}

static void poison_order(struct page *page, unsigned int order, int byte)
{
	u8 *p = kmap_atomic(page);

	memset(p, byte, PAGE_SIZE << order); /* expect: page-overrun */
	kunmap_atomic(p);
}

static void shifted(struct page *page, const void *src)
{
	char *p = kmap_local_page(page);

	memcpy(p + 128, src, PAGE_SIZE); /* expect: page-overrun */
	kunmap_local(p);
}

static void whole_sg(struct scatterlist *sg, void *to)
{
	void *from = kmap_atomic(sg_page(sg)) + sg->offset;

	memcpy(to, from, sg->length); /* expect: page-overrun */
	kunmap_atomic(from - sg->offset);
}

static void whole_folio(struct folio *folio)
{
	void *p = kmap_local_folio(folio, 0);

	memset(p, 0xa5, folio_size(folio)); /* expect: page-overrun */
	kunmap_local(p);
}

static void pages_in_one(struct page *page, unsigned int nr, u8 *to)
{
	u8 *p = kmap_local_page(page);
	unsigned int i;

	for (i = 0; i < nr; i++)
		memcpy(to + i * PAGE_SIZE, p + i * PAGE_SIZE, PAGE_SIZE); /* expect: page-overrun */
	kunmap_local(p);
}

static u8 past_the_end(struct page *page)
{
	u8 *p = kmap_atomic(page);
	u8 v = p[PAGE_SIZE]; /* expect: page-overrun */

	kunmap_atomic(p);
	return v;
}

static void big_constant(struct page *page)
{
	u32 *p = kmap(page);

	memset(p, 0, 65536); /* expect: page-overrun */
	kunmap(page);
}

static void compound(struct page *page, void *to)
{
	void *from = kmap_local_page(page);

	memcpy(to, from, PAGE_SIZE << compound_order(page)); /* expect: page-overrun */
	kunmap_local(from);
}

static void counted(struct page *page, int npages, const void *src)
{
	void *to = kmap_atomic(page);

	memcpy(to, src, npages << PAGE_SHIFT); /* expect: page-overrun */
	kunmap_atomic(to);
}

static void last_and_more(struct page *page, u64 v)
{
	u64 *p = kmap_local_page(page);

	p[PAGE_SIZE / sizeof(u64)] = v; /* expect: page-overrun */
	kunmap_local(p);
}

static void whole_thp(struct page *page)
{
	void *p = kmap_local_page(page);

	memset(p, 0, HPAGE_PMD_SIZE); /* expect: page-overrun */
	kunmap_local(p);
}

/* ---- right ---- */

static void wipe_one(struct page *page)
{
	void *p = kmap_local_page(page);

	memset(p, 0, PAGE_SIZE);
	kunmap_local(p);
}

static void poison_each(struct page *page, unsigned int order, int byte)
{
	unsigned int i;

	for (i = 0; i < 1u << order; i++) {
		u8 *p = kmap_atomic(page + i);

		memset(p, byte, PAGE_SIZE);
		kunmap_atomic(p);
	}
}

static void rest_of_page(struct page *page, unsigned int off, const void *src)
{
	char *p = kmap_local_page(page);

	memcpy(p + off, src, PAGE_SIZE - off);
	kunmap_local(p);
}

static size_t bounded(struct page *page, unsigned int off, const void *src, size_t len)
{
	size_t n = min_t(size_t, len, PAGE_SIZE - off);
	char *p = kmap_atomic(page);

	memcpy(p + off, src, n);
	kunmap_atomic(p);
	return n;
}

static void bounded_sg(struct scatterlist *sg, void *to)
{
	unsigned int n = min_t(unsigned int, sg->length, PAGE_SIZE - sg->offset);
	void *from = kmap_atomic(sg_page(sg)) + sg->offset;

	memcpy(to, from, n);
	kunmap_atomic(from - sg->offset);
}

static int rejected(struct page *page, const void *src, size_t len)
{
	void *p;

	if (len > PAGE_SIZE)
		return -E2BIG;
	p = kmap_local_page(page);
	memcpy(p, src, len);
	kunmap_local(p);
	return 0;
}

static void segments(struct bio *bio, u8 *to)
{
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_for_each_segment(bv, bio, iter) {
		void *from = bvec_kmap_local(&bv);

		memcpy(to, from, bv.bv_len);
		kunmap_local(from);
		to += bv.bv_len;
	}
}

static void folio_by_page(struct folio *folio)
{
	size_t at;

	for (at = 0; at < folio_size(folio); at += PAGE_SIZE) {
		void *p = kmap_local_folio(folio, at);

		memset(p, 0xa5, PAGE_SIZE);
		kunmap_local(p);
	}
}

static void last_entry(struct page *page, u64 v)
{
	u64 *p = kmap_local_page(page);

	p[PAGE_SIZE / sizeof(u64) - 1] = v;
	kunmap_local(p);
}

static void two_halves_of_one(struct page *page, const u8 *a, const u8 *b)
{
	u8 *p = kmap_local_page(page);

	memcpy(p, a, PAGE_SIZE / 2);
	memcpy(p + PAGE_SIZE / 2, b, PAGE_SIZE / 2);
	kunmap_local(p);
}

static void other_buffer_is_big(struct page *page, u8 *big)
{
	u8 *p = kmap_local_page(page);

	memset(big, 0, 4 * PAGE_SIZE);
	memcpy(big + 3 * PAGE_SIZE, p, PAGE_SIZE);
	kunmap_local(p);
}

static void sectors(struct page *page, unsigned int sector, const void *src)
{
	unsigned int off = (sector & (PAGE_SECTORS - 1)) << SECTOR_SHIFT;
	void *p = kmap_atomic(page);

	memcpy(p + off, src, 1 << SECTOR_SHIFT);
	kunmap_atomic(p);
}

static void tally_pages(struct page *page, int order)
{
	void *at = kmap_local_page(page);

	tally_note(KIND_PAGES, at, PAGE_SIZE << order);
	kunmap_local(at);
}
