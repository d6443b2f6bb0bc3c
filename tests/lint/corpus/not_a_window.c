/* not-a-window: the unmaps of temporary windows take what a map call returned. */

/* ---- wrong ---- */

static void of_page_address(struct page *page, u8 v)
{
	u8 *p = page_address(page); /* may: unmapped-high-page */

	p[0] = v;
	kunmap_atomic(p); /* expect: not-a-window */
}

static void conversion_left_over(struct scatterlist *sg, const void *from)
{
	char *to = sg_virt(sg); /* may: unmapped-high-page */

	memcpy(to, from, 16);
	kunmap_atomic(to); /* expect: not-a-window */
}

static int of_slab(size_t len)
{
	void *p = kmalloc(len, GFP_KERNEL);

	if (!p)
		return -ENOMEM;
	memset(p, 0, len);
	kunmap_local(p); /* expect: not-a-window */
	kfree(p);
	return 0;
}

static void of_vector(struct bio_vec *bv, u8 v)
{
	u8 *p = bvec_kmap_local(bv);

	p[0] = v;
	kunmap_local(bv); /* expect: not-a-window|page-not-address */
}

static void of_stack(struct page *page)
{
	u8 copy[64];
	u8 *p = kmap_local_page(page);

	memcpy(copy, p, sizeof(copy));
	kunmap_local(copy); /* expect: not-a-window */
}

static void of_walk(struct walk2 *w, struct page *page)
{
	w->addr = kmap_atomic(page);
	walk2_step(w);
	kunmap_atomic(&w->addr); /* expect: not-a-window */
	w->addr = NULL;
}

static void of_free_page(u8 v)
{
	unsigned long addr = __get_free_page(GFP_KERNEL);

	if (!addr)
		return;
	*(u8 *)addr = v;
	kunmap_atomic((void *)addr); /* expect: not-a-window */
	free_page(addr);
}

static int of_vmalloc(size_t len)
{
	void *p = vmalloc(len);

	if (!p)
		return -ENOMEM;
	fill_random(p, len);
	kunmap_local(p); /* expect: not-a-window */
	vfree(p);
	return 0;
}

static void loop_of_low(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		u8 *p = page_address(pages[i]); /* may: unmapped-high-page */

		p[0] = i;
		kunmap_local(p); /* expect: not-a-window */
	}
}

static void of_folio_address(struct folio *folio)
{
	char *p = folio_address(folio); /* may: unmapped-high-page */

	p[0] = 0;
	kunmap_local(p); /* expect: not-a-window */
}

/* ---- right ---- */

static void tested_both_times(struct page *page, u8 v)
{
	u8 *p = PageHighMem(page) ? kmap_atomic(page) : page_address(page);

	p[0] = v;
	if (PageHighMem(page))
		kunmap_atomic(p);
}

static void from_caller2(void *addr)
{
	kunmap_local(addr);
}

static void from_field(struct walk2 *w)
{
	kunmap_atomic(w->addr);
	w->addr = NULL;
}

static void through_wrapper(struct store *st, u8 v)
{
	u8 *p = st->ops->map(st, 0);

	p[0] = v;
	kunmap_local(p);
}

static void interior(struct page *page, unsigned int n)
{
	struct rec2 *r = kmap_local_page(page);

	r[n % 8].used = 1;
	kunmap_local(&r[n % 8]);
}

static void via_integer(struct page *page)
{
	unsigned long a = (unsigned long)kmap_atomic(page);

	*(u8 *)a = 0;
	kunmap_atomic((void *)a);
}

static void two_of_a_struct(struct pair2 *pr, struct page *a, struct page *b)
{
	pr->x = kmap_local_page(a);
	pr->y = kmap_local_page(b);
	pr->x[0] = pr->y[0];
	kunmap_local(pr->y);
	kunmap_local(pr->x);
	pr->x = pr->y = NULL;
}

static void callee_sets(struct page *page, u8 v)
{
	void *addr;

	map_for_me(page, &addr);
	*(u8 *)addr = v;
	kunmap_local(addr);
}

static void low_not_unmapped(struct page *page, u8 v)
{
	u8 *p;

	if (PageHighMem(page)) {
		p = kmap_local_page(page);
		p[0] = v;
		kunmap_local(p);
	} else {
		p = page_address(page);
		p[0] = v;
	}
}

static void masked2(struct page *page, unsigned int off)
{
	char *p = kmap_atomic(page) + off;

	*p = 0;
	kunmap_atomic((void *)((unsigned long)p & PAGE_MASK));
}
