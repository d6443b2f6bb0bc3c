/* double-unmap: an unmap for which no window is left. */

/* ---- wrong ---- */

static int crumb_store(struct crumb *c, struct page *page)
{
	u32 *p = kmap_local_page(page);

	p[0] = c->id;
	kunmap_local(p);
	if (c->sync)
		c->seq++;
	kunmap_local(p); /* expect: double-unmap */
	return 0;
}

static int chunk_send(struct chan *ch, struct page *page)
{
	void *buf = kmap_atomic(page);
	int err;

	err = chan_check(ch, buf);
	if (err)
		goto out;
	kunmap_atomic(buf);
	err = chan_kick(ch);
	if (err)
		goto out;
	return 0;
out:
	kunmap_atomic(buf); /* expect: double-unmap */
	return err;
}

static int shelf_write(struct page *page, const char *src, int len)
{
	char *to;
	int left;

	to = kmap(page);
	left = shelf_fill(to, src, len);
	kunmap(page);
	if (left)
		goto fail;
	return len;
fail:
	kunmap(page); /* expect: double-unmap */
	return -EFAULT;
}

static void stamp_all(struct page **pages, int nr)
{
	u64 *p = kmap_local_page(pages[0]);
	int i;

	for (i = 0; i < nr; i++) {
		p[i] = ktime_get_ns(); /* may: stale-access */
		kunmap_local(p); /* expect: double-unmap */
	}
}

static int envelope_open(struct page *page, int mode)
{
	struct envelope *e = kmap_atomic(page);
	int ret = 0;

	switch (mode) {
	case ENV_PEEK:
		ret = e->kind;
		kunmap_atomic(e);
	case ENV_TAKE:
		kunmap_atomic(e); /* expect: double-unmap */
		break;
	default:
		kunmap_atomic(e);
	}
	return ret;
}

static void row_release(struct row *row)
{
	kunmap_local(row->addr);
}

static int row_update(struct row *row, struct page *page)
{
	row->addr = kmap_local_page(page);
	row->addr[0] = 1;
	row_release(row);
	kunmap_local(row->addr); /* expect: double-unmap */
	return 0;
}

static int pin_check(struct page *page)
{
	char *a = kmap_local_page(page);
	char *alias = a;
	int ok = a[0] == 'P';

	kunmap_local(alias);
	kunmap_local(a); /* expect: double-unmap */
	return ok;
}

static int header_parse(struct page *page, struct hdrinfo *info)
{
	struct raw_hdr *raw = kmap(page);
	int err = 0;

	if (raw->len > PAGE_SIZE) {
		err = -EINVAL;
		kunmap(page);
	}
	info->len = err ? 0 : 16;
	kunmap(page); /* expect: double-unmap */
	return err;
}

static void twin_unmap(struct page *a, struct page *b)
{
	u8 *x = kmap_atomic(a);
	u8 *y = kmap_atomic(b);

	x[0] = y[0];
	kunmap_atomic(y);
	kunmap_atomic(y); /* expect: double-unmap */
	kunmap_atomic(x);
}

static int fetch_retry(struct fetcher *f, struct page *page)
{
	void *at;
	int tries = 0;

	at = kmap_local_page(page);
again:
	if (fetch_into(f, at) == 0) { /* may: stale-access */
		kunmap_local(at);
		return 0;
	}
	kunmap_local(at); /* expect: double-unmap */
	if (++tries < 3)
		goto again;
	return -EIO;
}

static void ledger_close(struct ledger *l, struct page *page, bool failed)
{
	u8 *p = kmap_atomic(page);

	l->sum += p[0];
	kunmap_atomic(p);
	if (failed) {
		l->bad++;
		kunmap_atomic(p); /* expect: double-unmap */
	}
}

/* ---- right ---- */

static int crumb_twice(struct crumb *c, struct page *page)
{
	u32 *p = kmap_local_page(page);

	p[0] = c->id;
	kunmap_local(p);
	p = kmap_local_page(page);
	p[1] = c->id;
	kunmap_local(p);
	return 0;
}

static int cleared_then_tested(struct page *page, struct chan *ch)
{
	void *buf = kmap_atomic(page);
	int err = chan_check(ch, buf);

	if (!err) {
		kunmap_atomic(buf);
		buf = NULL;
		err = chan_kick(ch);
	}
	if (buf)
		kunmap_atomic(buf);
	return err;
}

static int two_users(struct page *page, u8 *to)
{
	u8 *a = kmap(page);
	u8 *b = kmap(page);

	to[0] = a[0];
	to[1] = b[1];
	kunmap(page);
	kunmap(page);
	return 0;
}

static int one_per_branch(struct page *page, bool fast)
{
	u32 *p = kmap_local_page(page);
	u32 v;

	if (fast) {
		v = p[0];
		kunmap_local(p);
	} else {
		v = p[1] + p[2];
		kunmap_local(p);
	}
	return v;
}

static int fail_before_and_after(struct page *page, struct chan *ch)
{
	void *buf = kmap_local_page(page);
	int err;

	err = chan_check(ch, buf);
	if (err)
		goto unmap;
	kunmap_local(buf);
	err = chan_kick(ch);
	if (err)
		goto out;
	return 0;
unmap:
	kunmap_local(buf);
out:
	return err;
}

static void loop_pairs(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		u64 *p = kmap_local_page(pages[i]);

		p[0] = i;
		kunmap_local(p);
	}
}

static int retry_right(struct fetcher *f, struct page *page)
{
	int tries = 0, err;
	void *at;

again:
	at = kmap_local_page(page);
	err = fetch_into(f, at);
	kunmap_local(at);
	if (err && ++tries < 3)
		goto again;
	return err;
}

static int flagged(struct page *page, struct hdrinfo *info)
{
	struct raw_hdr *raw = kmap_atomic(page);
	bool mapped = true;

	if (raw->len > PAGE_SIZE) {
		kunmap_atomic(raw);
		mapped = false;
	}
	info->len = 16;
	if (mapped)
		kunmap_atomic(raw);
	return mapped ? 0 : -EINVAL;
}

static int switch_once(struct page *page, int mode)
{
	struct envelope *e = kmap_atomic(page);
	int ret = 0;

	switch (mode) {
	case ENV_PEEK:
		ret = e->kind;
		break;
	case ENV_TAKE:
		ret = e->kind;
		e->kind = 0;
		break;
	}
	kunmap_atomic(e);
	return ret;
}

static void next_page(struct stream *st)
{
	if (st->addr)
		kunmap_local(st->addr);
	st->addr = NULL;
	if (st->left)
		st->addr = kmap_local_page(st->pages[--st->left]);
}

static void unmap_in_else(struct page *a, struct page *b, bool both)
{
	u8 *x = kmap_atomic(a);

	if (both) {
		u8 *y = kmap_atomic(b);

		y[0] = x[0];
		kunmap_atomic(y);
	}
	kunmap_atomic(x);
}

static void weir_open_gates(struct weir *weir, struct scatterlist *sg, int nr)
{
	struct gate_plan plan = { .copy = weir->copies };
	int i;

	for_each_sg(sg, sg, nr, i) {
		if (plan.copy)
			plan.at = kmap_atomic(sg_page(sg));
		weir_each_gate(sg, &plan);
		if (plan.copy)
			kunmap_atomic(plan.at);
	}
}

static void ledger_copy(struct ledger *ledger, struct bio *bio)
{
	struct bio_vec bvec;
	struct bvec_iter iter;
	int i = 0;

	bio_for_each_segment(bvec, bio, iter) {
		ledger->at[i] = kmap(bvec.bv_page); /* may: pool-exhausted */
		i++;
	}
	ledger_read(ledger, i);
	bio_for_each_segment(bvec, bio, iter)
		kunmap(bvec.bv_page);
}
