/* unmap-order: temporary windows are a stack; the one mapped last is unmapped first. */

/* ---- wrong ---- */

static void tile_copy(struct page *to, struct page *from)
{
	void *d = kmap_local_page(to);
	void *s = kmap_local_page(from);

	copy_page(d, s);
	kunmap_local(d); /* expect: unmap-order */
	kunmap_local(s);
}

static int zsheet_read(struct zsheet *z, struct page *user, struct page *store)
{
	void *dst, *src;

	dst = kmap_atomic(user);
	src = kmap_atomic(store);
	memcpy(dst, src, z->size & ~PAGE_MASK);
	kunmap_atomic(dst); /* expect: unmap-order */
	kunmap_atomic(src);
	return 0;
}

static bool page_same(struct page *a, struct page *b)
{
	char *x, *y;
	bool same;

	x = kmap_atomic(a);
	y = kmap_atomic(b);
	same = !memcmp(x, y, PAGE_SIZE);
	kunmap_atomic(x); /* expect: unmap-order */
	kunmap_atomic(y);
	return same;
}

static void trio_rotate(struct page *p, struct page *q, struct page *r)
{
	u64 *a = kmap_local_page(p);
	u64 *b = kmap_local_page(q);
	u64 *c = kmap_local_page(r);
	u64 t = a[0];

	a[0] = b[0];
	b[0] = c[0];
	c[0] = t;
	kunmap_local(c);
	kunmap_local(a); /* expect: unmap-order */
	kunmap_local(b);
}

static int cipher_block(struct engine *eng, struct page *in, struct page *out, unsigned int off)
{
	u8 *src = kmap_atomic(in) + off;
	u8 *dst = kmap_atomic(out) + off;
	int err;

	err = engine_run(eng, dst, src, 16);
	kunmap_atomic(src); /* expect: unmap-order */
	kunmap_atomic(dst);
	return err;
}

static int journal_move(struct journal *j, struct page *old, struct page *new)
{
	void *from, *to;
	int err = 0;

	from = kmap_local_page(old);
	to = kmap_local_page(new);
	if (j->aborted) {
		err = -EROFS;
		goto out;
	}
	memcpy(to, from, j->len & (PAGE_SIZE - 1));
out:
	kunmap_local(from); /* expect: unmap-order */
	kunmap_local(to);
	return err;
}

static void palette_merge(struct page *base, struct page *over)
{
	u32 *low = kmap_atomic(base);
	u32 *high = kmap_atomic(over);
	int i;

	for (i = 0; i < 256; i++)
		low[i] |= high[i];
	kunmap_atomic((void *)low); /* expect: unmap-order */
	kunmap_atomic((void *)high);
}

static int raid_pair(struct page **pages)
{
	u8 *pair[2];
	int bad;

	pair[0] = kmap_local_page(pages[0]);
	pair[1] = kmap_local_page(pages[1]);
	bad = crypto_memneq(pair[0], pair[1], 512);
	kunmap_local(pair[0]); /* expect: unmap-order */
	kunmap_local(pair[1]);
	return bad;
}

static void span_apply(struct span *s, struct page *head, struct page *tail)
{
	s->first = kmap_local_page(head);
	s->last = kmap_local_page(tail);
	s->first[0] ^= s->last[0];
	kunmap_local(s->first); /* expect: unmap-order */
	kunmap_local(s->last);
	s->first = NULL;
	s->last = NULL;
}

static int folio_compare(struct folio *a, struct folio *b, size_t off)
{
	char *x = kmap_local_folio(a, off);
	char *y = kmap_local_folio(b, off);
	int d = memcmp(x, y, 32);

	if (d) {
		kunmap_local(x); /* expect: unmap-order */
		kunmap_local(y);
		return d;
	}
	kunmap_local(y);
	kunmap_local(x);
	return 0;
}

static void bvec_pour(struct bio_vec *to, struct page *from)
{
	char *d = bvec_kmap_local(to);
	char *s = kmap_local_page(from);

	memcpy(d, s, min_t(unsigned int, to->bv_len, 512));
	kunmap_local(d); /* expect: unmap-order */
	kunmap_local(s);
}

/* ---- right ---- */

static void tile_copy_nested(struct page *to, struct page *from)
{
	void *d = kmap_local_page(to);
	void *s = kmap_local_page(from);

	copy_page(d, s);
	kunmap_local(s);
	kunmap_local(d);
}

static void permanent_any_order(struct page *a, struct page *b)
{
	void *x = kmap(a);
	void *y = kmap(b);

	memcpy(x, y, 128);
	kunmap(a);
	kunmap(b);
}

static int one_after_another(struct page *a, struct page *b, u32 *sum)
{
	u32 *p = kmap_atomic(a);

	*sum = p[0];
	kunmap_atomic(p);
	p = kmap_atomic(b);
	*sum += p[0];
	kunmap_atomic(p);
	return 0;
}

static void shift_pages(struct page **pages, unsigned int to, unsigned int from)
{
	char *d = kmap_atomic(pages[to]);
	char *s = d;

	if (to != from)
		s = kmap_atomic(pages[from]);
	memmove(d, s, 256);
	if (to != from)
		kunmap_atomic(s);
	kunmap_atomic(d);
}

static void helper_inside(struct page *out, struct page *in)
{
	char *d = kmap_local_page(out);

	memcpy_from_page(d, in, 0, 512);
	kunmap_local(d);
}

static u32 peek_word(struct page *page, unsigned int at)
{
	u32 *p = kmap_local_page(page);
	u32 v = p[at];

	kunmap_local(p);
	return v;
}

static u32 caller_holds_one(struct page *a, struct page *b)
{
	u32 *p = kmap_local_page(a);
	u32 v = p[0] + peek_word(b, 1);

	kunmap_local(p);
	return v;
}

static void remap_second(struct page *keep, struct page **rest, int nr)
{
	u8 *base = kmap_local_page(keep);
	int i;

	for (i = 0; i < nr; i++) {
		u8 *p = kmap_local_page(rest[i]);

		base[i] = p[0];
		kunmap_local(p);
	}
	kunmap_local(base);
}

static int swap_pair(struct page *a, struct page *b)
{
	u8 *win[2];

	win[0] = kmap_local_page(a);
	win[1] = kmap_local_page(b);
	swap(win[0][0], win[1][0]);
	kunmap_local(win[1]);
	kunmap_local(win[0]);
	return 0;
}

static void mixed_families(struct page *a, struct page *b)
{
	void *perm = kmap(a);
	void *temp = kmap_atomic(b);

	memcpy(temp, perm, 64);
	kunmap(a);
	kunmap_atomic(temp);
}

static void branch_orders(struct page *a, struct page *b, bool back)
{
	char *x, *y;

	if (back) {
		y = kmap_atomic(b);
		x = kmap_atomic(a);
		memcpy(y, x, 16);
		kunmap_atomic(x);
		kunmap_atomic(y);
	} else {
		x = kmap_atomic(a);
		y = kmap_atomic(b);
		memcpy(x, y, 16);
		kunmap_atomic(y);
		kunmap_atomic(x);
	}
}

static int ladder_reverse(struct page *a, struct page *b, struct page *c)
{
	void *x = kmap_local_page(a);
	void *y = kmap_local_page(b);
	void *z;
	int err = -EBUSY;

	if (PageLocked(c))
		goto out;
	z = kmap_local_page(c);
	memcpy(z, x, 8);
	memcpy(z + 8, y, 8);
	kunmap_local(z);
	err = 0;
out:
	kunmap_local(y);
	kunmap_local(x);
	return err;
}
