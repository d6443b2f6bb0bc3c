/* busy-entry: up to 2.6.36 a name is one slot of the CPU, and only one window can have it. */

/* ---- wrong ---- */

static void copy_same_slot(struct page *to, struct page *from)
{
	void *d = kmap_atomic(to, KM_USER0);
	void *s = kmap_atomic(from, KM_USER0); /* expect: busy-entry */

	memcpy(d, s, 512);
	kunmap_atomic(s, KM_USER0);
	kunmap_atomic(d, KM_USER0);
}

static int compare_irq(struct page *a, struct page *b)
{
	char *x = kmap_atomic(a, KM_IRQ0);
	char *y = kmap_atomic(b, KM_IRQ0); /* expect: busy-entry */
	int d = memcmp(x, y, 64);

	kunmap_atomic(y, KM_IRQ0);
	kunmap_atomic(x, KM_IRQ0);
	return d;
}

static void inner_loop(struct page *head, struct page **rest, int nr)
{
	u8 *h = kmap_atomic(head, KM_USER1);
	int i;

	for (i = 0; i < nr; i++) {
		u8 *p = kmap_atomic(rest[i], KM_USER1); /* expect: busy-entry */

		h[i] = p[0];
		kunmap_atomic(p, KM_USER1);
	}
	kunmap_atomic(h, KM_USER1);
}

static int only_when_mirrored(struct page *a, struct page *b, bool mirror)
{
	u32 *x = kmap_atomic(a, KM_USER0);

	x[0]++;
	if (mirror) {
		u32 *y = kmap_atomic(b, KM_USER0); /* expect: busy-entry */

		y[0] = x[0];
		kunmap_atomic(y, KM_USER0);
	}
	kunmap_atomic(x, KM_USER0);
	return 0;
}

static void third_takes_first(struct page *a, struct page *b, struct page *c)
{
	u8 *x = kmap_atomic(a, KM_USER0);
	u8 *y = kmap_atomic(b, KM_USER1);
	u8 *z = kmap_atomic(c, KM_USER0); /* expect: busy-entry */

	z[0] = x[0] ^ y[0];
	kunmap_atomic(z, KM_USER0);
	kunmap_atomic(y, KM_USER1);
	kunmap_atomic(x, KM_USER0);
}

static void bounce(struct bio_vec *to, struct bio_vec *from)
{
	char *d = kmap_atomic(to->bv_page, KM_BOUNCE_READ) + to->bv_offset;
	char *s = kmap_atomic(from->bv_page, KM_BOUNCE_READ); /* expect: busy-entry */

	memcpy(d, s + from->bv_offset, 512);
	kunmap_atomic(s, KM_BOUNCE_READ);
	kunmap_atomic(d - to->bv_offset, KM_BOUNCE_READ);
}

static u32 softirq_pair(struct sk_buff *skb, struct page *key)
{
	u32 *k = kmap_atomic(key, KM_SOFTIRQ0);
	u32 *p = kmap_atomic(skb_shinfo(skb)->frags[0].page, KM_SOFTIRQ0); /* expect: busy-entry */
	u32 v = p[0] ^ k[0];

	kunmap_atomic(p, KM_SOFTIRQ0);
	kunmap_atomic(k, KM_SOFTIRQ0);
	return v;
}

static int goto_second(struct page *a, struct page *b, int again)
{
	u8 *x, *y;
	int v = 0;

	x = kmap_atomic(a, KM_USER0);
	if (!again)
		goto out;
	y = kmap_atomic(b, KM_USER0); /* expect: busy-entry */
	v = y[0];
	kunmap_atomic(y, KM_USER0);
out:
	v += x[0];
	kunmap_atomic(x, KM_USER0);
	return v;
}

static void field_window(struct latch *l, struct page *other)
{
	u8 *q;

	l->addr = kmap_atomic(l->page, KM_USER1);
	q = kmap_atomic(other, KM_USER1); /* expect: busy-entry */
	l->addr[0] = q[0];
	kunmap_atomic(q, KM_USER1);
	kunmap_atomic(l->addr, KM_USER1);
	l->addr = NULL;
}

static void switch_inside(struct page *a, struct page *b, int kind)
{
	u8 *x = kmap_atomic(a, KM_USER0);
	u8 *y;

	switch (kind) {
	case 1:
		y = kmap_atomic(b, KM_USER0); /* expect: busy-entry */
		y[0] = x[0];
		kunmap_atomic(y, KM_USER0);
		break;
	default:
		x[0] = 0;
	}
	kunmap_atomic(x, KM_USER0);
}

/* ---- right ---- */

static void two_names(struct page *to, struct page *from)
{
	void *d = kmap_atomic(to, KM_USER0);
	void *s = kmap_atomic(from, KM_USER1);

	memcpy(d, s, 512);
	kunmap_atomic(s, KM_USER1);
	kunmap_atomic(d, KM_USER0);
}

static int in_turn(struct page *a, struct page *b)
{
	u8 *p = kmap_atomic(a, KM_USER0);
	int v = p[0];

	kunmap_atomic(p, KM_USER0);
	p = kmap_atomic(b, KM_USER0);
	v += p[0];
	kunmap_atomic(p, KM_USER0);
	return v;
}

static int either_branch(struct page *a, struct page *b, bool first)
{
	u8 *p;
	int v;

	if (first)
		p = kmap_atomic(a, KM_USER0);
	else
		p = kmap_atomic(b, KM_USER0);
	v = p[0];
	kunmap_atomic(p, KM_USER0);
	return v;
}

static void each_turn(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		u8 *p = kmap_atomic(pages[i], KM_USER0);

		p[0] = 0;
		kunmap_atomic(p, KM_USER0);
	}
}

static void with_permanent(struct page *a, struct page *b)
{
	void *x = kmap(a);
	void *y = kmap_atomic(b, KM_USER0);

	memcpy(x, y, 64);
	kunmap_atomic(y, KM_USER0);
	kunmap(a);
}

static void caller_chooses(struct page *a, struct page *b, enum km_type one, enum km_type two)
{
	u8 *x = kmap_atomic(a, one);
	u8 *y = kmap_atomic(b, two);

	x[0] = y[0];
	kunmap_atomic(y, two);
	kunmap_atomic(x, one);
}

static void no_names(struct page *a, struct page *b)
{
	u8 *x = kmap_atomic(a);
	u8 *y = kmap_atomic(b);

	x[0] = y[0];
	kunmap_atomic(y);
	kunmap_atomic(x);
}

static int early_unmap(struct page *a, struct page *b)
{
	u8 *p = kmap_atomic(a, KM_USER0);

	if (p[0]) {
		kunmap_atomic(p, KM_USER0);
		p = kmap_atomic(b, KM_USER0);
		p[0] = 1;
	}
	kunmap_atomic(p, KM_USER0);
	return 0;
}

static void pair_in_loop(struct page **to, struct page **from, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		void *d = kmap_atomic(to[i], KM_USER0);
		void *s = kmap_atomic(from[i], KM_USER1);

		copy_page(d, s);
		kunmap_atomic(s, KM_USER1);
		kunmap_atomic(d, KM_USER0);
	}
}

static void irq_and_user(struct page *a, struct page *b)
{
	u8 *x = kmap_atomic(a, KM_USER0);
	u8 *y = kmap_atomic(b, KM_IRQ0);

	x[0] = y[0];
	kunmap_atomic(y, KM_IRQ0);
	kunmap_atomic(x, KM_USER0);
}
