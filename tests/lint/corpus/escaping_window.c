/* escaping-window: a temporary window belongs to its task (its CPU) and must not outlive it. */

static u8 *last_window;
static u8 *perm_base;
static struct page *perm_page;

/* ---- wrong ---- */

static void keep_global(struct page *page)
{
	last_window = kmap_local_page(page); /* expect: escaping-window */
}

static void hand_to_worker(struct unit *u, struct page *page)
{
	u->work_addr = kmap_local_page(page);
	INIT_WORK(&u->work, unit_work);
	queue_work(unit_wq, &u->work); /* expect: escaping-window */
}

static int hand_to_thread(struct page *page)
{
	void *addr = kmap_local_page(page);
	struct task_struct *t;

	t = kthread_run(drain_thread, addr, "drain"); /* expect: escaping-window */
	return PTR_ERR_OR_ZERO(t);
}

static int hold_atomic(struct gadget *g, struct page *page)
{
	g->regs = kmap_atomic(page); /* expect: escaping-window */
	g->ready = true;
	return 0;
}

static int in_tree(struct xarray *xa, unsigned long index, struct page *page)
{
	void *addr = kmap_local_page(page);

	return xa_err(xa_store(xa, index, addr, GFP_KERNEL)); /* expect: escaping-window */
}

static void on_a_list(struct queue *q, struct qent *ent, struct page *page)
{
	ent->data = kmap_local_page(page);
	spin_lock(&q->lock);
	list_add_tail(&ent->list, &q->head); /* expect: escaping-window */
	spin_unlock(&q->lock);
}

static void by_timer(struct lamp *lamp, struct page *page)
{
	lamp->addr = kmap_local_page(page);
	timer_setup(&lamp->timer, lamp_fire, 0);
	mod_timer(&lamp->timer, jiffies + HZ); /* expect: escaping-window */
}

static void publish(struct table *tab, struct page *page)
{
	u32 *rows = kmap_local_page(page);

	rcu_assign_pointer(tab->rows, rows); /* expect: escaping-window */
}

static void async_read(struct aio_req *req, struct page *page)
{
	req->iocb.private = kmap_local_page(page);
	req->iocb.ki_complete = aio_req_done;
	schedule_work(&req->work); /* expect: escaping-window */
}

static void in_device(struct device *dev, struct page *page)
{
	dev_set_drvdata(dev, kmap_local_page(page)); /* expect: escaping-window */
}

static int delayed(struct unit *u, struct page *page)
{
	u->late_addr = kmap_atomic(page);
	u->late_addr[0] = 0;
	schedule_delayed_work(&u->late, HZ); /* expect: escaping-window */
	return 0;
}

/* ---- right ---- */

static void *returned_to_caller(struct page *page)
{
	return kmap_local_page(page);
}

static void on_the_stack(struct page *page, u32 v)
{
	struct cursor_state st = { .page = page };

	st.addr = kmap_local_page(page);
	cursor_put(&st, v);
	kunmap_local(st.addr);
}

static void field_for_a_while(struct reader *rd, struct page *page)
{
	rd->now = kmap_local_page(page);
	reader_eat(rd);
	kunmap_local(rd->now);
	rd->now = NULL;
}

static int perm_open(struct page *page)
{
	perm_page = page;
	perm_base = kmap(page);
	return 0;
}

static void perm_shut(void)
{
	kunmap(perm_page);
	perm_base = NULL;
}

static void perm_to_worker(struct unit *u, struct page *page)
{
	u->perm_page = page;
	u->perm_addr = kmap(page);
	queue_work(unit_wq, &u->work);
}

static void perm_from_worker(struct work_struct *work)
{
	struct unit *u = container_of(work, struct unit, work);

	memset(u->perm_addr, 0, 64);
	kunmap(u->perm_page);
}

static void value_not_window(struct unit *u, struct page *page)
{
	u32 *p = kmap_local_page(page);

	u->value = p[0];
	kunmap_local(p);
	queue_work(unit_wq, &u->work);
}

static void iter_next(struct pgiter *it)
{
	if (it->addr)
		kunmap_local(it->addr);
	it->addr = kmap_local_page(it->pages[it->n++]);
}

static void iter_stop(struct pgiter *it)
{
	if (it->addr)
		kunmap_local(it->addr);
	it->addr = NULL;
}

static void page_to_worker(struct unit *u, struct page *page)
{
	get_page(page);
	u->page = page;
	queue_work(unit_wq, &u->work);
}

static int to_callee(struct page *page, struct crypto_shash *tfm, u8 *out)
{
	SHASH_DESC_ON_STACK(desc, tfm);
	void *p = kmap_local_page(page);
	int err;

	desc->tfm = tfm;
	err = crypto_shash_digest(desc, p, PAGE_SIZE, out);
	kunmap_local(p);
	return err;
}

static int out_parameter(struct page *page, void **addr, struct page **ret)
{
	*addr = kmap_local_page(page);
	*ret = page;
	return 0;
}

static void list_without_window(struct queue *q, struct qent *ent, struct page *page)
{
	u8 *p = kmap_local_page(page);

	ent->kind = p[0];
	kunmap_local(p);
	list_add_tail(&ent->list, &q->head);
}
