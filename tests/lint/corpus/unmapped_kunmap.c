/* unmapped-kunmap: kunmap() of a page that this path has not mapped. */

/* ---- wrong ---- */

static int fresh_page(struct pool2 *pool)
{
	struct page *page = alloc_page(GFP_HIGHUSER);

	if (!page)
		return -ENOMEM;
	kunmap(page); /* expect: unmapped-kunmap|double-unmap */
	pool->page = page;
	return 0;
}

static int looked_up(struct address_space *mapping, pgoff_t n)
{
	struct page *page = find_get_page(mapping, n);

	if (!page)
		return -ENOENT;
	SetPageChecked(page);
	kunmap(page); /* expect: unmapped-kunmap|double-unmap */
	put_page(page);
	return 0;
}

static int out_before_map(struct address_space *mapping, u8 *to)
{
	struct page *page = grab_cache_page(mapping, 0);
	int err = -EIO;
	u8 *p;

	if (!page)
		return -ENOMEM;
	if (PageError(page))
		goto out;
	p = kmap(page);
	*to = p[0];
	err = 0;
out:
	kunmap(page); /* expect: unmapped-kunmap|double-unmap */
	unlock_page(page);
	put_page(page);
	return err;
}

static int read_then_unmap(struct address_space *mapping)
{
	struct page *page = read_mapping_page(mapping, 0, NULL);

	if (IS_ERR(page))
		return PTR_ERR(page);
	kunmap(page); /* expect: unmapped-kunmap|double-unmap */
	put_page(page);
	return 0;
}

static int conversion_half(struct address_space *mapping, u8 *to)
{
	struct page *page = read_mapping_page(mapping, 1, NULL);
	u8 *p;

	if (IS_ERR(page))
		return PTR_ERR(page);
	p = kmap_local_page(page);
	*to = p[0];
	kunmap_local(p);
	kunmap(page); /* expect: unmapped-kunmap|double-unmap|mismatched-pair */
	put_page(page);
	return 0;
}

static int only_when_dirty(struct address_space *mapping, u8 v)
{
	struct page *page = find_lock_page(mapping, 2);
	u8 *p;

	if (!page)
		return -ENOENT;
	if (!PageDirty(page)) {
		p = kmap(page);
		p[0] = v;
	}
	kunmap(page); /* expect: unmapped-kunmap|double-unmap */
	unlock_page(page);
	put_page(page);
	return 0;
}

static int copy_made(struct page *from)
{
	struct page *copy = alloc_page(GFP_HIGHUSER);

	if (!copy)
		return -ENOMEM;
	copy_highpage(copy, from);
	kunmap(copy); /* expect: unmapped-kunmap|double-unmap */
	__free_page(copy);
	return 0;
}

static int after_helper(struct address_space *mapping, const void *src)
{
	struct page *page = grab_cache_page(mapping, 4);

	if (!page)
		return -ENOMEM;
	memcpy_to_page(page, 0, src, 64);
	kunmap(page); /* expect: unmapped-kunmap|double-unmap */
	unlock_page(page);
	put_page(page);
	return 0;
}

static int loop_of_fresh(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		struct page *page = alloc_page(GFP_HIGHUSER);

		if (!page)
			return -ENOMEM;
		clear_highpage(page);
		kunmap(page); /* expect: unmapped-kunmap|double-unmap */
		pages[i] = page;
	}
	return 0;
}

static int low_address_instead(struct pool2 *pool)
{
	struct page *page = alloc_page(GFP_KERNEL);

	if (!page)
		return -ENOMEM;
	memset(page_address(page), 0, 64);
	kunmap(page); /* expect: unmapped-kunmap|double-unmap */
	pool->page = page;
	return 0;
}

/* ---- right ---- */

static int fresh_mapped(struct pool2 *pool)
{
	struct page *page = alloc_page(GFP_HIGHUSER);

	if (!page)
		return -ENOMEM;
	memset(kmap(page), 0, 64);
	kunmap(page);
	pool->page = page;
	return 0;
}

static void of_caller(struct page *page)
{
	kunmap(page);
	put_page(page);
}

static void of_field(struct holder2 *h)
{
	kunmap(h->page);
	h->addr = NULL;
}

static void into_field(struct holder2 *h, struct page *page)
{
	h->page = page;
	h->addr = kmap(page);
}

static int out_after_map(struct address_space *mapping, u8 *to)
{
	struct page *page = grab_cache_page(mapping, 0);
	int err = -EIO;
	u8 *p;

	if (!page)
		return -ENOMEM;
	p = kmap(page);
	if (PageError(page))
		goto out;
	*to = p[0];
	err = 0;
out:
	kunmap(page);
	unlock_page(page);
	put_page(page);
	return err;
}

static struct page *mapped_page(struct address_space *mapping, pgoff_t n)
{
	struct page *page = read_mapping_page(mapping, n, NULL);

	if (!IS_ERR(page))
		kmap(page);
	return page;
}

static int of_helper(struct address_space *mapping, u8 *to)
{
	struct page *page = mapped_page(mapping, 0);

	if (IS_ERR(page))
		return PTR_ERR(page);
	*to = *(u8 *)page_address(page);
	kunmap(page);
	put_page(page);
	return 0;
}

static int by_flag(struct address_space *mapping, bool look, u8 *to)
{
	struct page *page = find_get_page(mapping, 0);

	if (!page)
		return -ENOENT;
	if (look)
		*to = *(u8 *)kmap(page);
	if (look)
		kunmap(page);
	put_page(page);
	return 0;
}

static int two_labels(struct address_space *mapping, u8 *to)
{
	struct page *page = find_get_page(mapping, 0);
	int err = -EIO;
	u8 *p;

	if (!page)
		return -ENOENT;
	if (PageError(page))
		goto put;
	p = kmap(page);
	if (!p[0])
		goto unmap;
	*to = p[0];
	err = 0;
unmap:
	kunmap(page);
put:
	put_page(page);
	return err;
}

static int unknown_finder(struct dir3 *d, u32 id)
{
	struct page *page;
	struct ent3 *e = dir3_find(d, id, &page);

	if (!e)
		return -ENOENT;
	d->last = e->off;
	kunmap(page);
	put_page(page);
	return 0;
}

static int via_array(struct address_space *mapping, struct page **keep)
{
	struct page *page = find_get_page(mapping, 0);

	if (!page)
		return -ENOENT;
	keep[0] = page;
	keep[1] = (struct page *)kmap(keep[0]);
	kunmap(page);
	put_page(page);
	return 0;
}
