/* unmapped-high-page: page_address() of a page that may lie in high memory. */

/* ---- wrong ---- */

static void *from_cache(struct address_space *mapping, pgoff_t index)
{
	struct page *page = find_get_page(mapping, index);

	if (!page)
		return NULL;
	return page_address(page); /* expect: unmapped-high-page */
}

static void pio_out(struct scatterlist *sg, void __iomem *port)
{
	u32 *buf = sg_virt(sg); /* expect: unmapped-high-page */
	unsigned int n;

	for (n = 0; n < sg->length / 4; n++)
		writel(buf[n], port);
}

static void vec_payload(struct bio_vec *bv, void *to)
{
	memcpy(to, page_address(bv->bv_page) + bv->bv_offset, bv->bv_len); /* expect: unmapped-high-page */
}

static u8 live_atomic_is_not_enough(struct address_space *mapping)
{
	struct page *page = read_mapping_page(mapping, 0, NULL);
	u8 *p, v;

	if (IS_ERR(page))
		return 0;
	p = kmap_atomic(page);
	v = p[0] + *(u8 *)page_address(page); /* expect: unmapped-high-page */
	kunmap_atomic(p);
	put_page(page);
	return v;
}

static int high_on_request(struct pool *pool)
{
	struct page *page = alloc_page(GFP_KERNEL | __GFP_HIGHMEM);

	if (!page)
		return -ENOMEM;
	memset(page_address(page), 0, 64); /* expect: unmapped-high-page */
	pool->page = page;
	return 0;
}

static int user_memory(unsigned long uaddr, u32 *out)
{
	struct page *page;

	if (get_user_pages_fast(uaddr, 1, 0, &page) != 1)
		return -EFAULT;
	*out = *(u32 *)page_address(page); /* expect: unmapped-high-page */
	put_page(page);
	return 0;
}

static void frag_sum(const skb_frag_t *frag, u32 *sum)
{
	u8 *p = page_address(skb_frag_page(frag)); /* expect: unmapped-high-page? */

	*sum += p[skb_frag_off(frag)];
}

static void after_the_unmap(struct address_space *mapping, u8 *out)
{
	struct page *page = grab_cache_page(mapping, 0);
	u8 *p;

	if (!page)
		return;
	p = kmap(page);
	p[0] = 1;
	kunmap(page);
	*out = *(u8 *)page_address(page); /* expect: unmapped-high-page */
	unlock_page(page);
	put_page(page);
}

static int write_out(struct file *file, struct page *page, loff_t *pos)
{
	return kernel_write(file, page_address(page), PAGE_SIZE, pos); /* expect: unmapped-high-page? */
}

static int bio_first(struct bio *bio)
{
	struct bio_vec bv = bio_iovec(bio);
	char *data = page_address(bv.bv_page); /* expect: unmapped-high-page */

	return data[bv.bv_offset];
}

static void highuser(struct vma_state *st)
{
	struct page *page = alloc_pages(GFP_HIGHUSER_MOVABLE, 0);
	char *p;

	if (!page)
		return;
	p = page_address(page); /* expect: unmapped-high-page */
	p[0] = st->mark;
	st->page = page;
}

static int sg_compare(struct scatterlist *a, struct scatterlist *b)
{
	return memcmp(page_address(sg_page(a)) + a->offset, /* expect: unmapped-high-page */
		      page_address(sg_page(b)) + b->offset, a->length);
}

/* ---- right ---- */

static void tested(struct page *page, u8 v)
{
	u8 *p;

	if (PageHighMem(page))
		p = kmap_atomic(page);
	else
		p = page_address(page);
	p[0] = v;
	if (PageHighMem(page))
		kunmap_atomic(p);
}

static int low_by_allocation(struct pool *pool)
{
	struct page *page = alloc_page(GFP_KERNEL);

	if (!page)
		return -ENOMEM;
	memset(page_address(page), 0, 64);
	pool->page = page;
	return 0;
}

static int zeroed_low(struct pool *pool)
{
	struct page *page = alloc_pages(GFP_ATOMIC | __GFP_ZERO, 1);

	if (page)
		pool->base = page_address(page);
	return page ? 0 : -ENOMEM;
}

static u8 under_perm(struct address_space *mapping)
{
	struct page *page = read_mapping_page(mapping, 0, NULL);
	u8 v;

	if (IS_ERR(page))
		return 0;
	kmap(page);
	v = *(u8 *)page_address(page);
	kunmap(page);
	put_page(page);
	return v;
}

static void of_low_address(void *buf)
{
	struct page *page = virt_to_page(buf);

	memset(page_address(page), 0, 16);
}

static void null_tested(struct page *page, u8 v)
{
	u8 *p = page_address(page);

	if (p) {
		p[0] = v;
		return;
	}
	p = kmap_atomic(page);
	p[0] = v;
	kunmap_atomic(p);
}

static int refused(struct page *page)
{
	if (PageHighMem(page))
		return -EINVAL;
	clear_page(page_address(page));
	return 0;
}

static void negative_test(struct page *page, u8 v)
{
	if (!PageHighMem(page))
		((u8 *)page_address(page))[0] = v;
}

static void slab_page(struct kmem *k)
{
	void *obj = kmalloc(64, GFP_KERNEL);

	if (!obj)
		return;
	k->first = page_address(virt_to_head_page(obj));
	k->obj = obj;
}

static void *fresh_dma(struct device *dev)
{
	struct page *page = alloc_pages(GFP_DMA | __GFP_NOWARN, 2);

	return page ? page_address(page) : NULL;
}

static int through_variable(struct pool *pool, gfp_t unused)
{
	gfp_t gfp = GFP_NOIO | __GFP_ZERO;
	struct page *page;

	page = alloc_page(gfp);
	if (!page)
		return -ENOMEM;
	pool->base = page_address(page);
	return 0;
}

static void sg_mapped(struct scatterlist *sg, u32 v)
{
	u32 *p = kmap_local_page(sg_page(sg)) + sg->offset;

	p[0] = v;
	kunmap_local(p);
}

static u32 express_sum(struct xdp_buff *xdp)
{
	struct skb_shared_info *shared = xdp_get_shared_info_from_buff(xdp);
	u8 *p = page_address(skb_frag_page(&shared->frags[0]));

	return p[0];
}

static void parcel_stamp(struct sock *sk, struct parcel *parcel)
{
	struct page_frag *frag = sk_page_frag(sk);
	u8 *p = page_address(frag->page) + frag->offset;

	p[0] = parcel->stamp;
}

static void letter_fill(struct letter *letter, void *text, size_t len)
{
	sg_init_one(letter->sheet, text, len);
}

static u32 letter_read(struct letter *letter)
{
	u32 *words = sg_virt(letter->sheet);

	return words[0];
}
