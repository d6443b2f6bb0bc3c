/* address-not-page: kunmap() takes the page that was mapped, and no other thing. */

/* ---- wrong ---- */

static int reply_copy(struct page *page, void *to, size_t len)
{
	void *from = kmap(page);

	memcpy(to, from, len);
	kunmap(from); /* expect: address-not-page */
	return 0;
}

static int ioctl_take(struct filehandle *fh, struct page **pages, int nr)
{
	void *kaddr, *map;
	int i;

	for (i = 0; i < nr; i++) {
		kaddr = map = kmap(pages[i]);
		kaddr += fh->skip;
		fh->sum += *(u8 *)kaddr;
		kunmap(map); /* expect: address-not-page */
	}
	return nr;
}

struct plist {
	struct page *tail;
	void *tail_addr;
	size_t room;
};

static int plist_add(struct plist *pl)
{
	struct page *page = alloc_page(GFP_NOFS);

	if (!page)
		return -ENOMEM;
	if (pl->tail_addr)
		kunmap(pl->tail_addr); /* expect: address-not-page */
	pl->tail = page;
	pl->tail_addr = kmap(page);
	pl->room = PAGE_SIZE;
	return 0;
}

static void plist_release(struct plist *pl)
{
	if (pl->tail_addr)
		kunmap(pl->tail_addr); /* expect: address-not-page */
	pl->tail_addr = NULL;
}

static int one_right_one_wrong(struct page *page, u32 magic)
{
	u32 *p = kmap(page);

	if (p[0] == magic) {
		kunmap(page);
		return 0;
	}
	p[0] = magic;
	kunmap(p); /* expect: address-not-page */
	return 1;
}

static void next_index(struct page **pages, int n, const u8 *src)
{
	u8 *p = kmap(pages[n]);

	memcpy(p, src, 16);
	kunmap(pages[n + 1]); /* expect: address-not-page */
}

static void wrong_of_two(struct page *src, struct page *dst)
{
	u8 *p = kmap(src);

	memcpy_to_page(dst, 0, p, 64);
	kunmap(dst); /* expect: address-not-page */
}

static int struct_not_page(struct sector *sec)
{
	u8 *p = kmap(sec->page);
	int v = p[sec->at];

	kunmap(sec); /* expect: address-not-page */
	return v;
}

static void advanced_then_given(struct page *page, int n)
{
	char *p = kmap(page);

	while (n-- > 0)
		*p++ = ' ';
	kunmap(p); /* expect: address-not-page */
}

static int err_path_only(struct page *page, struct inode *inode)
{
	char *name = kmap(page);
	int err = name_check(name);

	if (err) {
		kunmap(name); /* expect: address-not-page */
		return err;
	}
	inode->i_flags |= S_NOATIME;
	kunmap(page);
	return 0;
}

static u64 cast_to_page(struct page *page)
{
	u64 *q = kmap(page);
	u64 v = q[1];

	kunmap((struct page *)q); /* expect: address-not-page */
	return v;
}

static void table_alloc(struct mm_area *area)
{
	struct page *page = alloc_pages(GFP_KERNEL | __GFP_ZERO, 0);
	pte_t *pte;

	if (!page)
		return;
	pte = kmap(page);
	cache_page(pte);
	kunmap(pte); /* expect: address-not-page */
	area->table = page;
}

/* ---- right ---- */

static int reply_copy_right(struct page *page, void *to, size_t len)
{
	void *from = kmap(page);

	memcpy(to, from, len);
	kunmap(page);
	return 0;
}

static int advanced_but_by_page(struct page *page, int n)
{
	char *p = kmap(page);

	while (n-- > 0)
		*p++ = ' ';
	kunmap(page);
	return 0;
}

static void from_address(struct page *page)
{
	void *addr = kmap(page);

	memset(addr, 0, 8);
	kunmap(kmap_to_page(addr));
}

static void same_index(struct page **pages, int n, const u8 *src)
{
	u8 *p = kmap(pages[n]);

	memcpy(p, src, 16);
	kunmap(pages[n]);
}

static void alias_of_page(struct sector *sec)
{
	struct page *page = sec->page;
	u8 *p = kmap(page);

	p[sec->at] = 0;
	kunmap(sec->page);
}

static void page_in_void(struct call *call)
{
	void *p = kmap(call->reply);

	memset(p, 0, 32);
	kunmap(call->reply);
}

struct cursor {
	struct page *page;
	u8 *at;
};

static void cursor_open(struct cursor *c, struct page *page)
{
	c->page = page;
	c->at = kmap(c->page);
}

static void cursor_close(struct cursor *c)
{
	if (c->at)
		kunmap(c->page);
	c->at = NULL;
}

static void sg_page_twice(struct scatterlist *sg)
{
	u8 *p = kmap(sg_page(sg)) + sg->offset;

	p[0] ^= 1;
	kunmap(sg_page(sg));
}

static void walk_pages(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		((u8 *)kmap(pages[i]))[0] = i; /* may: pool-exhausted */
	for (i = 0; i < nr; i++)
		kunmap(pages[i]);
}

static void plus_page(struct page *first, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		clear_page(kmap(first + i));
		kunmap(first + i);
	}
}

static void folio_first(struct folio *folio, u8 v)
{
	u8 *p = kmap(&folio->page);

	p[0] = v;
	kunmap(&folio->page);
}

static void keg_unmap(struct keg *keg, unsigned long number, void *address)
{
	if (keg->ops->kunmap)
		keg->ops->kunmap(keg, number, address);
}

static void reel_to_kvec(struct reel *reel, unsigned int n, struct kvec *vec)
{
	vec->iov_len = reel->size;
	vec->iov_base = kmap(reel->pages[n]);
}

static int reel_sum(struct reel *reel, struct sum *sum)
{
	struct kvec vec;
	int i;

	for (i = 0; i < reel->count; i++) {
		reel_to_kvec(reel, i, &vec);
		sum_add(sum, vec.iov_base, vec.iov_len);
		kunmap(reel->pages[i]);
	}
	return 0;
}
