/* unused-window: a page is mapped and unmapped, and what was meant for it goes elsewhere. */

/* ---- wrong ---- */

static void wipes_the_list(struct scatterlist *sg)
{
	void *buf = kmap_atomic(sg_page(sg)) + sg->offset; /* expect: unused-window */

	memset(sg, 0, 8);
	kunmap_atomic(buf);
}

static void wipes_the_page_struct(struct note *n, struct page *page)
{
	char *p = kmap_local_page(page); /* expect: unused-window */

	memset(n->text, 0, sizeof(n->text));
	kunmap_local(p);
}

static int wrong_buffer(struct chan *ch, struct page *page, u8 *bounce, size_t len)
{
	u8 *data = kmap(page); /* expect: unused-window */
	int err = chan_write(ch, bounce, len);

	kunmap(page);
	return err;
}

static void old_variable(struct page *old, struct page *new, u8 v)
{
	u8 *a = kmap_local_page(old);
	u8 *b = kmap_local_page(new); /* expect: unused-window */

	a[0] = v;
	a[1] = v;
	kunmap_local(b);
	kunmap_local(a);
}

static void leftover(struct page *page, struct counter *c)
{
	void *p = kmap_atomic(page); /* expect: unused-window */

	c->hits++;
	kunmap_atomic(p);
}

static int read_copy(struct page *page, const struct hdr *copy)
{
	struct hdr *h = kmap_local_page(page); /* expect: unused-window */
	int v = copy->version;

	kunmap_local(h);
	return v;
}

static void loop_leftover(struct page **pages, u32 *out, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		u32 *p = kmap_local_page(pages[i]); /* expect: unused-window */

		out[i] = i;
		kunmap_local(p);
	}
}

static void both_ends(struct page *page, u8 *from, u8 *to)
{
	u8 *p = kmap(page); /* expect: unused-window */

	memcpy(to, from, 64);
	kunmap(page);
}

static void folio_leftover(struct folio *folio, size_t len)
{
	char *p = kmap_local_folio(folio, 0); /* expect: unused-window */

	folio_zero_segment(folio, 0, len);
	kunmap_local(p);
}

static int branch_forgets(struct page *page, struct stats *st, bool wide)
{
	u64 *p = kmap_atomic(page); /* expect: unused-window */

	if (wide)
		st->wide++;
	else
		st->narrow++;
	kunmap_atomic(p);
	return 0;
}

/* ---- right ---- */

static void used(struct scatterlist *sg)
{
	void *buf = kmap_atomic(sg_page(sg)) + sg->offset;

	memset(buf, 0, 8);
	kunmap_atomic(buf);
}

static void used_by_callee(struct page *page, struct shash_desc *desc)
{
	void *p = kmap_local_page(page);

	crypto_shash_update(desc, p, 64);
	kunmap_local(p);
}

static void used_inline(struct page *page)
{
	memset(kmap(page), 0, 64);
	kunmap(page);
}

static void used_through_page_address(struct page *page)
{
	kmap(page);
	memset(page_address(page), 0, 64);
	kunmap(page);
}

static void used_by_page(struct page *page, struct entry2 *e)
{
	kmap(page);
	entry_fill(e, page);
	kunmap(page);
}

static int used_in_condition(struct page *page)
{
	u8 *p = kmap_local_page(page);
	int found = 0;

	if (p[0] == 'x')
		found = 1;
	kunmap_local(p);
	return found;
}

static void used_on_one_path(struct page *page, struct stats *st, bool wide)
{
	u64 *p = kmap_atomic(page);

	if (wide)
		st->wide += p[0];
	kunmap_atomic(p);
}

static void used_from_struct(struct cur3 *c, struct page *page)
{
	c->addr = kmap_local_page(page);
	cur3_fill(c);
	kunmap_local(c->addr);
	c->addr = NULL;
}

static void used_through_alias(struct page *page, u32 v)
{
	void *p = kmap_local_page(page);
	struct cell *cell = p;

	cell->v = v;
	kunmap_local(p);
}

static void used_in_loop(struct page *page, u8 *out, int nr)
{
	u8 *p = kmap_local_page(page);

	while (nr--)
		*out++ = p[nr];
	kunmap_local(p);
}

static void prefault(struct page *page)
{
	char *p = kmap_local_page(page);

	barrier_data(p);
	kunmap_local(p);
}

static int crop_write(struct crop *crop, struct page *page)
{
	void *from = kmap_local_page(page);
	int err = 0;

#ifdef CONFIG_CROP_COPY
	err = crop_copy(crop, from);
#endif
	kunmap_local(from);
	return err;
}
