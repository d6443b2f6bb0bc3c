/* stale-access: a window is used after its unmap. */

/* ---- wrong ---- */

static u32 late_read(struct page *page)
{
	u32 *p = kmap_local_page(page);

	kunmap_local(p);
	return p[0]; /* expect: stale-access */
}

static int late_log(struct page *page, struct disk *d)
{
	struct tuple *t = kmap_atomic(page);

	if (t->ref != d->ref) {
		kunmap_atomic(t);
		dev_err(d->dev, "ref %u instead of %u\n", t->ref, d->ref); /* expect: stale-access */
		return -EIO;
	}
	kunmap_atomic(t);
	return 0;
}

static void late_flush(struct page *page, struct pt *pt, int index)
{
	u32 *v = kmap_atomic(page);

	v[index] = pt->invalid;
	kunmap_atomic(v);
	clflush_line(&v[index]); /* expect: stale-access */
}

static void late_field(struct page *page, struct ring_info *info)
{
	struct ring_disk *r = kmap_atomic(page);

	r->head++;
	kunmap_atomic(r);
	info->head = r->head; /* expect: stale-access */
}

static int late_compare(struct page *page, const char *want)
{
	char *name = kmap_local_page(page);
	size_t len = strlen(name);

	kunmap_local(name);
	if (len != strlen(want))
		return -EINVAL;
	return memcmp(name, want, len) ? -ENOENT : 0; /* expect: stale-access */
}

static void alias_dies_too(struct page *page, unsigned int off)
{
	char *base = kmap_local_page(page);
	char *at = base + off;

	*at = 0;
	kunmap_local(base);
	*at = 1; /* expect: stale-access */
}

static void around_the_loop(struct page **pages, int nr)
{
	u8 *p = kmap_atomic(pages[0]);
	int i;

	for (i = 1; i < nr; i++) {
		u8 *q = kmap_atomic(pages[i]);

		q[0] = p[0];
		kunmap_atomic(q);
	}
	kunmap_atomic(p);
	p[1] = nr; /* expect: stale-access */
}

static char *late_return(struct page *page)
{
	char *text = kmap_local_page(page);

	kunmap_local(text);
	return text; /* expect: stale-access */
}

static int entry_ino(struct page *page, unsigned int off, u64 *ino)
{
	struct dent *de = kmap_local_page(page) + off;

	if (!de->len) {
		kunmap_local(de);
		return -ENOENT;
	}
	kunmap_local(de);
	*ino = le64_to_cpu(de->ino); /* expect: stale-access */
	return 0;
}

static void late_memset(struct folio *folio, size_t from)
{
	char *p = kmap_local_folio(folio, 0);

	p[0] = 1;
	kunmap_local(p);
	memset(p + from, 0, 32); /* expect: stale-access */
}

static void perm_late(struct page *page, u8 *out)
{
	u8 *p = kmap(page);

	out[0] = p[0];
	kunmap(page);
	out[1] = p[1]; /* expect: stale-access */
}

static int cond_late(struct page *page, bool early)
{
	u32 *p = kmap_atomic(page);
	u32 v = 0;

	if (early)
		kunmap_atomic(p);
	v = p[2]; /* expect: stale-access */
	if (!early)
		kunmap_atomic(p);
	return v;
}

/* ---- right ---- */

static u32 read_first(struct page *page)
{
	u32 *p = kmap_local_page(page);
	u32 v = p[0];

	kunmap_local(p);
	return v;
}

static int compare_address(struct page *page, void *other)
{
	void *p = kmap_local_page(page);
	int same;

	kunmap_local(p);
	same = p == other;
	return same;
}

static void cleared(struct page *page)
{
	u8 *p = kmap_atomic(page);

	p[0] = 1;
	kunmap_atomic(p);
	p = NULL;
	if (p)
		p[0] = 2;
}

static int offset_kept(struct page *page, unsigned int from)
{
	char *base = kmap_local_page(page);
	char *p = base + from;
	int at;

	while (*p && p < base + PAGE_SIZE - 1)
		p++;
	kunmap_local(base);
	at = p - base;
	return at;
}

static void mapped_again(struct page *page, struct ring_info *info)
{
	struct ring_disk *r = kmap_atomic(page);

	r->head++;
	kunmap_atomic(r);
	r = kmap_atomic(page);
	info->head = r->head;
	kunmap_atomic(r);
}

static void other_variable(struct page *a, struct page *b)
{
	u8 *p = kmap_local_page(a);
	u8 *q = kmap_local_page(b);
	u8 v = q[0];

	kunmap_local(q);
	p[0] = v;
	kunmap_local(p);
}

static int copied_out(struct page *page, struct disk *d)
{
	struct tuple *t = kmap_atomic(page);
	struct tuple copy = *t;

	kunmap_atomic(t);
	if (copy.ref != d->ref)
		dev_err(d->dev, "ref %u\n", copy.ref);
	return 0;
}

static void page_after_unmap(struct page *page)
{
	u8 *p = kmap(page);

	p[0] = 0;
	kunmap(page);
	SetPageUptodate(page);
	unlock_page(page);
}

static void perm_second_user(struct page *page, u8 *out)
{
	u8 *a = kmap(page);
	u8 *b = kmap(page);

	out[0] = a[0];
	kunmap(page);
	out[1] = b[1];
	kunmap(page);
}

static u32 sizeof_is_no_use(struct page *page)
{
	struct ring_disk *r = kmap_atomic(page);
	u32 n;

	r->head = 0;
	kunmap_atomic(r);
	n = sizeof(*r) / sizeof(r->head);
	return n;
}

static void loop_window(struct page **pages, int nr, u8 *out)
{
	u8 *p;
	int i;

	for (i = 0; i < nr; i++) {
		p = kmap_local_page(pages[i]);
		out[i] = p[0];
		kunmap_local(p);
	}
}

static int branch_exclusive(struct page *page, bool early)
{
	u32 *p = kmap_atomic(page);
	u32 v = 0;

	if (early)
		kunmap_atomic(p);
	if (!early) {
		v = p[2];
		kunmap_atomic(p);
	}
	return v;
}
