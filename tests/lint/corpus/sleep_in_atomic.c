/* sleep-in-atomic: no sleep while kmap_atomic() holds; no kmap() where sleep is forbidden. */

/* ---- wrong ---- */

static void slow_poll(struct page *page, struct port *port)
{
	u32 *p = kmap_atomic(page);

	while (!(p[0] & PORT_READY))
		msleep(1); /* expect: sleep-in-atomic */
	port->state = p[0];
	kunmap_atomic(p);
}

static int lock_inside(struct page *page, struct bank *bank)
{
	u8 *p = kmap_atomic(page);

	mutex_lock(&bank->lock); /* expect: sleep-in-atomic */
	bank->level = p[0];
	mutex_unlock(&bank->lock);
	kunmap_atomic(p);
	return 0;
}

static void *clone_blob(struct page *page, size_t len)
{
	void *from = kmap_atomic(page);
	void *to = kmalloc(len, GFP_KERNEL); /* expect: sleep-in-atomic */

	if (to)
		memcpy(to, from, min_t(size_t, len, PAGE_SIZE));
	kunmap_atomic(from);
	return to;
}

static int twin_page(struct page *page, struct page **copy)
{
	void *from = kmap_atomic(page);
	void *to;

	*copy = alloc_page(GFP_NOFS); /* expect: sleep-in-atomic */
	if (!*copy) {
		kunmap_atomic(from);
		return -ENOMEM;
	}
	to = kmap_atomic(*copy);
	copy_page(to, from);
	kunmap_atomic(to);
	kunmap_atomic(from);
	return 0;
}

static void long_sum(struct page *page, u64 *sum)
{
	u64 *p = kmap_atomic(page);
	int i;

	for (i = 0; i < PAGE_SIZE / sizeof(*p); i++) {
		*sum += p[i];
		cond_resched(); /* expect: sleep-in-atomic */
	}
	kunmap_atomic(p);
}

static int wait_inside(struct page *page, struct req *req)
{
	struct req_disk *d = kmap_atomic(page);

	d->seq = req->seq;
	wait_for_completion(&req->done); /* expect: sleep-in-atomic */
	kunmap_atomic(d);
	return req->status;
}

static int perm_inside(struct page *a, struct page *b)
{
	char *x = kmap_atomic(a);
	char *y = kmap(b); /* expect: sleep-in-atomic */
	int d = memcmp(x, y, 16);

	kunmap(b);
	kunmap_atomic(x);
	return d;
}

static void perm_under_spinlock(struct outq *q, struct page *page)
{
	void *p;

	spin_lock(&q->lock);
	p = kmap(page); /* expect: sleep-in-atomic */
	q->sum += *(u8 *)p;
	kunmap(page);
	spin_unlock(&q->lock);
}

static void perm_irqs_off(struct page *page, u32 *out)
{
	unsigned long flags;
	u32 *p;

	local_irq_save(flags);
	p = kmap(page); /* expect: sleep-in-atomic */
	*out = p[0];
	kunmap(page);
	local_irq_restore(flags);
}

static int bank_flush(struct bank *bank)
{
	mutex_lock(&bank->lock);
	bank->level = 0;
	mutex_unlock(&bank->lock);
	return 0;
}

static int through_helper(struct page *page, struct bank *bank)
{
	u8 *p = kmap_atomic(page);
	int err = 0;

	if (p[0] == 0xff)
		err = bank_flush(bank); /* expect: sleep-in-atomic */
	kunmap_atomic(p);
	return err;
}

static int event_inside(struct page *page, struct dev_state *st)
{
	u32 *p = kmap_atomic(page);
	int err;

	err = wait_event_interruptible(st->wq, p[0] != 0); /* expect: sleep-in-atomic */
	kunmap_atomic(p);
	return err;
}

static void read_inside(struct address_space *mapping, struct page *page)
{
	u8 *p = kmap_atomic(page);
	struct page *next = read_mapping_page(mapping, p[0], NULL); /* expect: sleep-in-atomic */

	if (!IS_ERR(next))
		put_page(next);
	kunmap_atomic(p);
}

/* ---- right ---- */

static void poll_with_local(struct page *page, struct port *port)
{
	u32 *p = kmap_local_page(page);

	while (!(p[0] & PORT_READY))
		msleep(1);
	port->state = p[0];
	kunmap_local(p);
}

static void lock_around(struct page *page, struct bank *bank)
{
	u8 *p;

	mutex_lock(&bank->lock);
	p = kmap_atomic(page);
	bank->level = p[0];
	kunmap_atomic(p);
	mutex_unlock(&bank->lock);
}

static void *clone_atomic(struct page *page)
{
	void *from = kmap_atomic(page);
	void *to = kmalloc(64, GFP_ATOMIC);

	if (to)
		memcpy(to, from, 64);
	kunmap_atomic(from);
	return to;
}

static void long_sum_paged(struct page **pages, int nr, u64 *sum)
{
	int i;

	for (i = 0; i < nr; i++) {
		u64 *p = kmap_atomic(pages[i]);

		*sum += p[0];
		kunmap_atomic(p);
		cond_resched();
	}
}

static unsigned long quick_then_slow(struct page *page, void __user *to, size_t n)
{
	void *p = kmap_atomic(page);
	unsigned long left = __copy_to_user_inatomic(to, p, n);

	kunmap_atomic(p);
	if (left) {
		p = kmap(page);
		left = copy_to_user(to, p, n);
		kunmap(page);
	}
	return left;
}

static int user_with_perm(struct page *page, const void __user *from, size_t n)
{
	void *p = kmap(page);
	int err = 0;

	if (copy_from_user(p, from, n))
		err = -EFAULT;
	kunmap(page);
	return err;
}

static void spin_inside(struct page *page, struct outq *q)
{
	u8 *p = kmap_atomic(page);

	spin_lock(&q->lock);
	q->sum += p[0];
	spin_unlock(&q->lock);
	kunmap_atomic(p);
}

static void atomic_under_spinlock(struct outq *q, struct page *page)
{
	u8 *p;

	spin_lock(&q->lock);
	p = kmap_atomic(page);
	q->sum += p[0];
	kunmap_atomic(p);
	spin_unlock(&q->lock);
}

static int unlock_then_perm(struct outq *q, struct page *page)
{
	u8 *p;
	int v;

	spin_lock(&q->lock);
	get_page(page);
	spin_unlock(&q->lock);
	p = kmap(page);
	v = p[0];
	kunmap(page);
	put_page(page);
	return v;
}

static int alloc_before(struct page *page, size_t len, void **out)
{
	void *to = kmalloc(len, GFP_KERNEL);
	void *from;

	if (!to)
		return -ENOMEM;
	from = kmap_atomic(page);
	memcpy(to, from, min_t(size_t, len, PAGE_SIZE));
	kunmap_atomic(from);
	*out = to;
	return 0;
}

static int drop_and_retake(struct page *page, struct bank *bank)
{
	u8 *p = kmap_atomic(page);
	int full = p[0] == 0xff;

	if (full) {
		kunmap_atomic(p);
		bank_flush(bank);
		p = kmap_atomic(page);
		p[0] = 0;
	}
	kunmap_atomic(p);
	return full;
}

static void busy_wait(struct page *page, struct port *port)
{
	u32 *p = kmap_atomic(page);
	int tries = 100;

	while (!(p[0] & PORT_READY) && --tries)
		udelay(1);
	port->state = p[0];
	kunmap_atomic(p);
}
