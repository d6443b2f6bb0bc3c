/* mismatched-pair: each family is closed by its own call. */

/* ---- wrong ---- */

static void perm_atomic(struct page *page)
{
	char *p = kmap(page);

	p[0] = 1;
	kunmap_atomic(p); /* expect: mismatched-pair */
}

static void atomic_local(struct page *page)
{
	char *p = kmap_atomic(page);

	p[0] = 1;
	kunmap_local(p); /* expect: mismatched-pair */
}

static void local_atomic(struct page *page)
{
	char *p = kmap_local_page(page);

	p[0] = 1;
	kunmap_atomic(p); /* expect: mismatched-pair */
}

static void atomic_perm(struct page *page)
{
	char *p = kmap_atomic(page);

	p[0] = 1;
	kunmap(page); /* expect: mismatched-pair */
}

static void local_perm(struct page *page)
{
	char *p = kmap_local_page(page);

	p[0] = 1;
	kunmap(page); /* expect: mismatched-pair */
}

static int one_exit_forgotten(struct page *page, u32 *out)
{
	u32 *p = kmap_local_page(page);

	if (p[0] == 0) {
		kunmap_local(p);
		return -ENODATA;
	}
	*out = p[1];
	kunmap_atomic(p); /* expect: mismatched-pair */
	return 0;
}

static void perm_local(struct page *page, const void *src)
{
	void *to = kmap(page);

	memcpy(to, src, 100);
	kunmap_local(to); /* expect: mismatched-pair */
}

static int goto_exit(struct page *page, struct job *job)
{
	struct job_disk *d = kmap_atomic(page);
	int err = 0;

	if (!d->id) {
		err = -ENOENT;
		goto out;
	}
	job->id = d->id;
out:
	kunmap_local(d); /* expect: mismatched-pair */
	return err;
}

static void folio_atomic(struct folio *folio)
{
	char *p = kmap_local_folio(folio, 0);

	memset(p, 0, 8);
	kunmap_atomic(p); /* expect: mismatched-pair */
}

static void pfn_local(unsigned long pfn, void *to)
{
	void *from = kmap_atomic_pfn(pfn);

	memcpy(to, from, 64);
	kunmap_local(from); /* expect: mismatched-pair */
}

static void loop_mixed(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		u8 *p = kmap_local_page(pages[i]);

		p[i] = 0;
		kunmap_atomic(p); /* expect: mismatched-pair */
	}
}

static void vec_atomic(struct bio_vec *bv, u8 v)
{
	u8 *p = bvec_kmap_local(bv);

	p[0] = v;
	kunmap_atomic(p); /* expect: mismatched-pair */
}

/* ---- right ---- */

static void each_its_own(struct page *a, struct page *b, struct page *c)
{
	char *x = kmap(a);
	char *y = kmap_local_page(b);
	char *z = kmap_atomic(c);

	z[0] = x[0] + y[0];
	kunmap_atomic(z);
	kunmap_local(y);
	kunmap(a);
}

static void chosen_by_flag(struct seg *seg)
{
	if (seg->atomic)
		seg->mapped = kmap_atomic(seg->page);
	else
		seg->mapped = kmap(seg->page);
	seg_use(seg);
	if (seg->atomic)
		kunmap_atomic(seg->mapped);
	else
		kunmap(seg->page);
	seg->mapped = NULL;
}

static void two_halves(struct page *page, bool may_sleep, u8 *to)
{
	u8 *p;

	if (may_sleep) {
		p = kmap_local_page(page);
		memcpy(to, p, 32);
		kunmap_local(p);
	} else {
		p = kmap_atomic(page);
		memcpy(to, p, 32);
		kunmap_atomic(p);
	}
}

static void folio_local(struct folio *folio)
{
	char *p = kmap_local_folio(folio, 0);

	memset(p, 0, 8);
	kunmap_local(p);
}

static void pfn_atomic(unsigned long pfn, void *to)
{
	void *from = kmap_atomic_pfn(pfn);

	memcpy(to, from, 64);
	kunmap_atomic(from);
}

static void pfn_local_right(unsigned long pfn, void *to)
{
	void *from = kmap_local_pfn(pfn);

	memcpy(to, from, 64);
	kunmap_local(from);
}

static void sg_iterate(struct scatterlist *sg, int nents, u8 v)
{
	struct sg_mapping_iter miter;

	sg_miter_start(&miter, sg, nents, SG_MITER_TO_SG | SG_MITER_ATOMIC);
	while (sg_miter_next(&miter))
		memset(miter.addr, v, miter.length);
	sg_miter_stop(&miter);
}

static void fallback(struct page *page, char __user *ubuf, size_t n)
{
	char *p = kmap_atomic(page);
	unsigned long left = __copy_to_user_inatomic(ubuf, p, n);

	kunmap_atomic(p);
	if (left) {
		p = kmap(page);
		left = copy_to_user(ubuf, p, n);
		kunmap(page);
	}
}

static void variadic(struct page *page)
{
	char *p = kmap_atomic(page, KM_IRQ0);

	p[0] = 0;
	kunmap_atomic(p, KM_IRQ0);
}

static void underscores(struct page *page)
{
	char *p = kmap_atomic(page);

	p[0] = 0;
	__kunmap_atomic(p);
}

static void vec_local(struct bio_vec *bv, u8 v)
{
	u8 *p = bvec_kmap_local(bv);

	p[0] = v;
	kunmap_local(p);
}
