/* pool-exhausted: one task holds many permanent windows and waits for more. */

/* ---- wrong ---- */

static int read_vector(struct file *file, struct page **pages, struct iovec *vec, int nr)
{
	int i, err;

	for (i = 0; i < nr; i++) {
		vec[i].iov_base = kmap(pages[i]); /* expect: pool-exhausted */
		vec[i].iov_len = PAGE_SIZE;
	}
	err = vector_read(file, vec, nr);
	for (i = 0; i < nr; i++)
		kunmap(pages[i]);
	return err;
}

static void sum_all(struct page **pages, u32 **maps, int nr, u32 *sum)
{
	int i;

	for (i = 0; i < nr; i++)
		maps[i] = kmap(pages[i]); /* expect: pool-exhausted */
	for (i = 0; i < nr; i++)
		*sum += maps[i][0];
	for (i = 0; i < nr; i++)
		kunmap(pages[i]);
}

static int send_batch(struct sock2 *s, struct batch *b)
{
	int i, err;

	for (i = 0; i < b->nr; i++)
		b->iov[i].iov_base = kmap(b->pages[i]); /* expect: pool-exhausted */
	err = sock2_send(s, b->iov, b->nr);
	for (i = 0; i < b->nr; i++)
		kunmap(b->pages[i]);
	return err;
}

static void while_loop(struct page **pages, void **at, int nr)
{
	int i = 0;

	while (i < nr) {
		at[i] = kmap(pages[i]); /* expect: pool-exhausted */
		i++;
	}
	use_maps(at, nr);
	while (--i >= 0)
		kunmap(pages[i]);
}

static int table_of(struct table2 *t, struct page **pages)
{
	int i;

	for (i = 0; i < t->npages; i++) {
		t->rows[i] = kmap(pages[i]); /* expect: pool-exhausted */
		t->sum += t->rows[i][0];
	}
	table2_build(t);
	for (i = 0; i < t->npages; i++)
		kunmap(pages[i]);
	return 0;
}

static void offsets_too(struct page **pages, u8 **at, unsigned int off, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		at[i] = (u8 *)kmap(pages[i]) + off; /* expect: pool-exhausted */
	merge_rows(at, nr);
	for (i = 0; i < nr; i++)
		kunmap(pages[i]);
}

static void thousand(struct page **pages, void **at)
{
	int i;

	for (i = 0; i < 1024; i++)
		at[i] = kmap(pages[i]); /* expect: pool-exhausted */
	use_maps(at, 1024);
	for (i = 0; i < 1024; i++)
		kunmap(pages[i]);
}

static int erasure(struct page **pages, void **ptrs, int disks, size_t len)
{
	int i;

	for (i = disks; i-- > 0; )
		ptrs[i] = kmap(pages[i]); /* expect: pool-exhausted */
	gen_parity(disks, len, ptrs);
	for (i = disks; i-- > 0; )
		kunmap(pages[i]);
	return 0;
}

static void plus_i(struct page *first, void **at, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		at[i] = kmap(first + i); /* expect: pool-exhausted */
	use_maps(at, nr);
	for (i = 0; i < nr; i++)
		kunmap(first + i);
}

static void do_loop(struct page **pages, void **at, int nr)
{
	int i = 0;

	do {
		at[i] = kmap(pages[i]); /* expect: pool-exhausted */
	} while (++i < nr);
	use_maps(at, nr);
	for (i = 0; i < nr; i++)
		kunmap(pages[i]);
}

/* ---- right ---- */

static void one_at_a_time(struct page **pages, u32 *sum, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		u32 *p = kmap(pages[i]);

		*sum += p[0];
		kunmap(pages[i]);
	}
}

static void two_only(struct page *a, struct page *b)
{
	u8 *x = kmap(a);
	u8 *y = kmap(b);

	x[0] = y[0];
	kunmap(b);
	kunmap(a);
}

static int virtually(struct page **pages, int nr)
{
	void *all = vmap(pages, nr, VM_MAP, PAGE_KERNEL);

	if (!all)
		return -ENOMEM;
	build_all(all, nr);
	vunmap(all);
	return 0;
}

static int stop_at_match(struct page **pages, int nr, u32 want)
{
	int i;

	for (i = 0; i < nr; i++) {
		u32 *p = kmap(pages[i]);
		u32 got = p[0];

		kunmap(pages[i]);
		if (got == want)
			return i;
	}
	return -ENOENT;
}

static void kept_until_next(struct page **pages, const u8 *text, int len)
{
	struct page *held = NULL;
	u8 *p = NULL;
	int i;

	for (i = 0; i < len; i++) {
		struct page *page = pages[i >> PAGE_SHIFT];

		if (page != held) {
			if (held)
				kunmap(held);
			held = page;
			p = kmap(page);
		}
		p[i & ~PAGE_MASK] = text[i];
	}
	if (held)
		kunmap(held);
}

static void pair_each_turn(struct page **to, struct page **from, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		void *d = kmap(to[i]);
		void *s = kmap(from[i]);

		copy_page(d, s);
		kunmap(from[i]);
		kunmap(to[i]);
	}
}

static void low_memory(struct page **pages, void **at, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		pages[i] = alloc_page(GFP_KERNEL);
		if (!pages[i])
			break;
		at[i] = page_address(pages[i]);
	}
	use_maps(at, i);
}

static int retry_same(struct page *page, int tries)
{
	int v = -EAGAIN;

	while (tries-- && v == -EAGAIN) {
		u8 *p = kmap(page);

		v = attempt(p);
		kunmap(page);
	}
	return v;
}

static void helper_each(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		memzero_page(pages[i], 0, 64);
}

static void branch_each(struct page **pages, int nr, bool odd)
{
	int i;

	for (i = 0; i < nr; i++) {
		u8 *p;

		if (odd && !(i & 1))
			continue;
		p = kmap(pages[i]);
		p[0] = i;
		kunmap(pages[i]);
	}
}
