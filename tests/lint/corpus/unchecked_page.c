/* unchecked-page: what may be an error pointer is tested before it is mapped. */

/* ---- wrong ---- */

static int label_of(struct address_space *mapping, char *out)
{
	struct page *page = read_mapping_page(mapping, 0, NULL);
	char *p = kmap(page); /* expect: unchecked-page */

	memcpy(out, p, 16);
	kunmap(page);
	put_page(page);
	return 0;
}

static u32 first_word(struct address_space *mapping, pgoff_t n)
{
	struct page *page;
	u32 *p, v;

	page = read_mapping_page(mapping, n, NULL);
	p = kmap_local_page(page); /* expect: unchecked-page */
	v = p[0];
	kunmap_local(p);
	put_page(page);
	return v;
}

static void mark_block(struct super_block *sb, pgoff_t n, int bit)
{
	struct page *page = read_mapping_page(sb->s_bdev->bd_inode->i_mapping, n, NULL);

	set_bit(bit, kmap(page)); /* expect: unchecked-page */
	kunmap(page);
	put_page(page);
}

static int cached(struct address_space *mapping, filler_t *fill)
{
	struct page *page = read_cache_page(mapping, 3, fill, NULL);
	u8 *p = kmap_atomic(page); /* expect: unchecked-page */
	int v = p[1];

	kunmap_atomic(p);
	put_page(page);
	return v;
}

static int loop_over(struct address_space *mapping, int nr, u32 *sum)
{
	int i;

	for (i = 0; i < nr; i++) {
		struct page *page = read_mapping_page(mapping, i, NULL);
		u32 *p = kmap_local_page(page); /* expect: unchecked-page */

		*sum += p[0];
		kunmap_local(p);
		put_page(page);
	}
	return 0;
}

static void gfp_variant(struct address_space *mapping, u8 *out)
{
	struct page *page = read_cache_page_gfp(mapping, 0, GFP_NOFS);
	u8 *p = kmap_local_page(page); /* expect: unchecked-page */

	*out = p[0];
	kunmap_local(p);
	put_page(page);
}

static int second_forgotten(struct address_space *mapping)
{
	struct page *page;
	u8 *p;
	int v = 0;

	page = read_mapping_page(mapping, 7, NULL);
	if (!page)
		return -EIO;
	p = kmap(page); /* expect: unchecked-page */
	v = p[0];
	kunmap(page);
	put_page(page);
	return v;
}

static int shmem_head(struct address_space *mapping, u8 *to)
{
	struct page *page = shmem_read_mapping_page(mapping, 0);
	u8 *p = kmap_atomic(page); /* expect: unchecked-page */

	memcpy(to, p, 8);
	kunmap_atomic(p);
	put_page(page);
	return 0;
}

static int branch_reads(struct tree *t, bool big, u64 *key)
{
	struct page *page;
	u64 *p;

	if (big)
		page = read_mapping_page(t->mapping, t->last, NULL);
	else
		page = read_mapping_page(t->mapping, 0, NULL);
	p = kmap_local_page(page); /* expect: unchecked-page */
	*key = p[0];
	kunmap_local(p);
	put_page(page);
	return 0;
}

static void into_struct(struct cursor2 *c, struct address_space *mapping)
{
	c->page = read_mapping_page(mapping, c->index, NULL);
	c->addr = kmap(c->page); /* expect: unchecked-page */
	c->left = PAGE_SIZE;
}

/* ---- right ---- */

static int tested(struct address_space *mapping, char *out)
{
	struct page *page = read_mapping_page(mapping, 0, NULL);
	char *p;

	if (IS_ERR(page))
		return PTR_ERR(page);
	p = kmap(page);
	memcpy(out, p, 16);
	kunmap(page);
	put_page(page);
	return 0;
}

static int tested_in_branch(struct address_space *mapping, u32 *out)
{
	struct page *page = read_mapping_page(mapping, 0, NULL);

	if (!IS_ERR(page)) {
		u32 *p = kmap_local_page(page);

		*out = p[0];
		kunmap_local(p);
		put_page(page);
	}
	return PTR_ERR_OR_ZERO(page);
}

static int null_not_error(struct address_space *mapping, u8 *out)
{
	struct page *page = find_get_page(mapping, 0);
	u8 *p;

	if (!page)
		return -ENOENT;
	p = kmap_atomic(page);
	*out = p[0];
	kunmap_atomic(p);
	put_page(page);
	return 0;
}

static int err_or_null(struct address_space *mapping, u8 *out)
{
	struct page *page = read_mapping_page(mapping, 1, NULL);
	u8 *p;

	if (IS_ERR_OR_NULL(page))
		return -EIO;
	p = kmap_local_page(page);
	*out = p[0];
	kunmap_local(p);
	put_page(page);
	return 0;
}

static int by_code(struct address_space *mapping, u8 *out)
{
	struct page *page = read_mapping_page(mapping, 1, NULL);
	int err = PTR_ERR_OR_ZERO(page);
	u8 *p;

	if (err)
		return err;
	p = kmap_local_page(page);
	*out = p[0];
	kunmap_local(p);
	put_page(page);
	return 0;
}

static void from_caller(struct page *page, u8 *out)
{
	u8 *p = kmap_local_page(page);

	*out = p[0];
	kunmap_local(p);
}

static int fresh(u8 v)
{
	struct page *page = alloc_page(GFP_HIGHUSER);
	u8 *p;

	if (!page)
		return -ENOMEM;
	p = kmap_local_page(page);
	p[0] = v;
	kunmap_local(p);
	__free_page(page);
	return 0;
}

static int loop_tested(struct address_space *mapping, int nr, u32 *sum)
{
	int i;

	for (i = 0; i < nr; i++) {
		struct page *page = read_mapping_page(mapping, i, NULL);
		u32 *p;

		if (IS_ERR(page))
			break;
		p = kmap_local_page(page);
		*sum += p[0];
		kunmap_local(p);
		put_page(page);
	}
	return i;
}

static int unlikely_tested(struct address_space *mapping, u8 *out)
{
	struct page *page = read_mapping_page(mapping, 2, NULL);
	int err = 0;
	u8 *p;

	if (unlikely(IS_ERR(page))) {
		err = PTR_ERR(page);
		goto out;
	}
	p = kmap(page);
	*out = p[2];
	kunmap(page);
	put_page(page);
out:
	return err;
}

static int not_mapped(struct address_space *mapping)
{
	struct page *page = read_mapping_page(mapping, 2, NULL);

	if (IS_ERR(page))
		return PTR_ERR(page);
	put_page(page);
	return 0;
}
