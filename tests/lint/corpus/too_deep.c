/* too-deep: a task has 15 (with debugging 16) local windows, a CPU 20 (41) atomic ones. */

/* ---- wrong ---- */

static void all_local(struct page **pages, void **at, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		at[i] = kmap_local_page(pages[i]); /* expect: too-deep */
	use_maps(at, nr);
	for (i = nr - 1; i >= 0; i--)
		kunmap_local(at[i]);
}

static void all_atomic(struct page **pages, void **at, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		at[i] = kmap_atomic(pages[i]); /* expect: too-deep */
	use_maps(at, nr);
	for (i = nr - 1; i >= 0; i--)
		kunmap_atomic(at[i]);
}

static void sixty_four(struct page **pages)
{
	void *at[64];
	int i;

	for (i = 0; i < 64; i++)
		at[i] = kmap_local_page(pages[i]); /* expect: too-deep */
	use_maps(at, 64);
	for (i = 63; i >= 0; i--)
		kunmap_local(at[i]);
}

static int syndrome(struct page **pages, void **ptrs, int disks, size_t len)
{
	int i;

	for (i = 0; i < disks; i++)
		ptrs[i] = kmap_local_page(pages[i]); /* expect: too-deep */
	gen_parity(disks, len, ptrs);
	for (i = disks - 1; i >= 0; i--)
		kunmap_local(ptrs[i]);
	return 0;
}

static void of_folio2(struct folio *folio, void **at)
{
	size_t n = folio_nr_pages(folio), i;

	for (i = 0; i < n; i++)
		at[i] = kmap_local_folio(folio, i * PAGE_SIZE); /* expect: too-deep */
	use_maps(at, n);
	while (i-- > 0)
		kunmap_local(at[i]);
}

static void rows_of(struct table3 *t)
{
	int i;

	for (i = 0; i < t->nr; i++)
		t->rows[i] = kmap_local_page(t->pages[i]); /* expect: too-deep */
	table3_sort(t);
	for (i = t->nr - 1; i >= 0; i--)
		kunmap_local(t->rows[i]);
}

static void backwards(struct page **pages, void **at, int nr)
{
	int i;

	for (i = nr - 1; i >= 0; i--)
		at[i] = kmap_atomic(pages[i]); /* expect: too-deep */
	use_maps(at, nr);
	for (i = 0; i < nr; i++)
		kunmap_atomic(at[i]);
}

static int iov_of(struct iovec *iov, struct page **pages, int nr)
{
	int i, err;

	for (i = 0; i < nr; i++)
		iov[i].iov_base = kmap_local_page(pages[i]); /* expect: too-deep */
	err = iov_crunch(iov, nr);
	for (i = nr - 1; i >= 0; i--)
		kunmap_local(iov[i].iov_base);
	return err;
}

static void while_maps(struct page **pages, void **at, int nr)
{
	int i = 0;

	while (i < nr) {
		at[i] = kmap_local_page(pages[i]); /* expect: too-deep */
		i++;
	}
	use_maps(at, nr);
	while (--i >= 0)
		kunmap_local(at[i]);
}

static void do_maps(struct page **pages, void **at, int nr)
{
	int i = 0;

	do {
		at[i] = kmap_atomic(pages[i]); /* expect: too-deep */
	} while (++i < nr);
	use_maps(at, nr);
	while (--i >= 0)
		kunmap_atomic(at[i]);
}

/* ---- right ---- */

static void each_local(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		u8 *p = kmap_local_page(pages[i]);

		p[0] = i;
		kunmap_local(p);
	}
}

static void two_nested(struct page *a, struct page *b)
{
	u8 *x = kmap_local_page(a);
	u8 *y = kmap_local_page(b);

	x[0] = y[0];
	kunmap_local(y);
	kunmap_local(x);
}

static void four_nested(struct page **p)
{
	u8 *a = kmap_local_page(p[0]);
	u8 *b = kmap_local_page(p[1]);
	u8 *c = kmap_local_page(p[2]);
	u8 *d = kmap_local_page(p[3]);

	a[0] = b[0] ^ c[0] ^ d[0];
	kunmap_local(d);
	kunmap_local(c);
	kunmap_local(b);
	kunmap_local(a);
}

static void pair_each(struct page **to, struct page **from, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		u8 *d = kmap_atomic(to[i]);
		u8 *s = kmap_atomic(from[i]);

		d[0] = s[0];
		kunmap_atomic(s);
		kunmap_atomic(d);
	}
}

static void outer_kept(struct page *head, struct page **rest, int nr)
{
	u8 *h = kmap_local_page(head);
	int i;

	for (i = 0; i < nr; i++) {
		u8 *p = kmap_local_page(rest[i]);

		h[i] = p[0];
		kunmap_local(p);
	}
	kunmap_local(h);
}

static int first_match(struct page **pages, int nr, u8 want)
{
	int i;

	for (i = 0; i < nr; i++) {
		u8 *p = kmap_local_page(pages[i]);
		bool hit = p[0] == want;

		kunmap_local(p);
		if (hit)
			break;
	}
	return i;
}

static void swap_current(struct page **pages, int nr, const u8 *text)
{
	u8 *p = NULL;
	int i;

	for (i = 0; i < nr; i++) {
		if (p)
			kunmap_local(p);
		p = kmap_local_page(pages[i]);
		p[0] = text[i];
	}
	if (p)
		kunmap_local(p);
}

static int all_virtual(struct page **pages, int nr)
{
	void *all = vmap(pages, nr, VM_MAP, PAGE_KERNEL);

	if (!all)
		return -ENOMEM;
	build_all(all, nr);
	vunmap(all);
	return 0;
}

static void helpers_only(struct page **to, struct page **from, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		copy_highpage(to[i], from[i]);
}

static void continue_unmapped(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		u8 *p = kmap_atomic(pages[i]);

		if (!p[0]) {
			kunmap_atomic(p);
			continue;
		}
		p[0] = 0;
		kunmap_atomic(p);
	}
}

static int roster_read(struct roster *roster, int nr, size_t chunk)
{
	struct roster_head *head = NULL;
	int i, seen = 0;

	for (i = 0; i < nr; i++) {
		char *at = kmap_atomic(roster->pages[i]);

		if (!head)
			head = (struct roster_head *)at;
		seen += roster_count(at, chunk);
		if (at != (char *)head)
			kunmap_atomic(at);
		if (seen >= head->total)
			break;
	}
	if (head)
		kunmap_atomic(head);
	return seen;
}
