/* deprecated-api: kmap() and kmap_atomic() where kmap_local_page() does the same safely. */

/* ---- to convert ---- */

static void clear_head(struct page *page)
{
	u8 *p = kmap(page); /* expect: deprecated-api */

	memset(p, 0, 64);
	kunmap(page);
}

static u32 read_word(struct page *page, unsigned int n)
{
	u32 *p = kmap_atomic(page); /* expect: deprecated-api */
	u32 v = p[n & 1023];

	kunmap_atomic(p);
	return v;
}

static int sleeps_while_mapped(struct page *page, struct file *file, loff_t *pos)
{
	void *p = kmap(page); /* expect: deprecated-api */
	int err = kernel_write(file, p, PAGE_SIZE, pos);

	kunmap(page);
	return err;
}

static int early_exit(struct page *page, u32 magic)
{
	u32 *p = kmap(page); /* expect: deprecated-api */

	if (p[0] != magic) {
		kunmap(page);
		return -EINVAL;
	}
	p[0] = 0;
	kunmap(page);
	return 0;
}

static void in_loop(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		u8 *p = kmap_atomic(pages[i]); /* expect: deprecated-api */

		p[0] = i;
		kunmap_atomic(p);
	}
}

static void nested_already(struct page *to, struct page *from)
{
	void *d = kmap_atomic(to); /* expect: deprecated-api */
	void *s = kmap_atomic(from);

	copy_page(d, s);
	kunmap_atomic(s);
	kunmap_atomic(d);
}

static int copy_user_in(struct page *page, const void __user *from, size_t len)
{
	void *p = kmap(page); /* expect: deprecated-api */
	int err = copy_from_user(p, from, min_t(size_t, len, PAGE_SIZE)) ? -EFAULT : 0;

	kunmap(page);
	return err;
}

static void sg_first(struct scatterlist *sg, u8 v)
{
	u8 *p = kmap_atomic(sg_page(sg)) + sg->offset; /* expect: deprecated-api */

	*p = v;
	kunmap_atomic(p);
}

static int to_helper(struct page *page, struct shash_desc *desc)
{
	void *p = kmap(page); /* expect: deprecated-api */
	int err = crypto_shash_update(desc, p, PAGE_SIZE);

	kunmap(page);
	return err;
}

static bool branch_pairs(struct page *page, bool wide)
{
	bool set;

	if (wide) {
		u64 *q = kmap_atomic(page); /* expect: deprecated-api */

		set = q[0];
		kunmap_atomic(q);
	} else {
		u32 *q = kmap_atomic(page);

		set = q[0];
		kunmap_atomic(q);
	}
	return set;
}

static int unwinding(struct page *page, struct lease *l)
{
	struct lease_disk *d;
	int err = 0;

	d = kmap(page); /* expect: deprecated-api */
	if (d->version > LEASE_VERSION) {
		err = -EPROTO;
		goto out;
	}
	l->until = le64_to_cpu(d->until);
out:
	kunmap(page);
	return err;
}

/* ---- to leave as they are ---- */

static void local_already(struct page *page)
{
	u8 *p = kmap_local_page(page);

	memset(p, 0, 64);
	kunmap_local(p);
}

static int kept_in_struct(struct holder *h, struct page *page)
{
	h->page = page;
	h->addr = kmap(page);
	return 0;
}

static void dropped_from_struct(struct holder *h)
{
	kunmap(h->page);
	h->addr = NULL;
}

static void to_another_thread(struct unit *u, struct page *page)
{
	u->page = page;
	u->addr = kmap(page);
	queue_work(unit_wq, &u->work);
}

static void not_nested(struct page *a, struct page *b)
{
	void *x = kmap(a);
	void *y = kmap(b);

	memcpy(x, y, 128);
	kunmap(a);
	kunmap(b);
}

static unsigned long needs_no_faults(struct page *page, void __user *to, size_t n)
{
	void *p = kmap_atomic(page);
	unsigned long left = __copy_to_user_inatomic(to, p, n);

	kunmap_atomic(p);
	return left;
}

static void many_at_once(struct page **pages, void **addrs, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		addrs[i] = kmap(pages[i]); /* may: pool-exhausted */
	use_all(addrs, nr);
	for (i = nr - 1; i >= 0; i--)
		kunmap(pages[i]);
}

static void *handed_out(struct page *page)
{
	return kmap(page);
}

static void folio_api(struct folio *folio)
{
	u8 *p = kmap_local_folio(folio, 0);

	p[0] = 0;
	kunmap_local(p);
}

static void helper_api(struct page *page, const void *from)
{
	memcpy_to_page(page, 0, from, 64);
	zero_user(page, 64, 64);
}

static u32 per_cpu_user(struct page *page, u32 __percpu *counter)
{
	u32 *p = kmap_atomic(page);
	u32 *c = this_cpu_ptr(counter);

	*c += p[0];
	kunmap_atomic(p);
	return 0;
}

static void page_address_user(struct page *page)
{
	kmap(page);
	fill_by_page_address(page);
	kunmap(page);
}
