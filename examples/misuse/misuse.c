// SPDX-License-Identifier: MIT
/*
 * misuse.ko: one deliberate misuse of the kernel's mapping calls for each load.
 *
 *	insmod misuse.ko what=order-atomic
 *
 * The pages are in high memory and named in the kernel's log, and nothing waits
 * for ever.  Some of these ways
 * end in a BUG or corrupt memory: load it in a virtual machine only.
 */
#define pr_fmt(fmt) "misuse: " fmt

#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/version.h>
#include <linux/vmalloc.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 17, 0)
#define complete_and_exit kthread_complete_and_exit
#endif

#define HAVE_LOCAL (LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0))

static char *what = "clean";
module_param(what, charp, 0444);
MODULE_PARM_DESC(what, "which misuse; an unknown name lists them");

static bool thread = true;
module_param(thread, bool, 0444);
MODULE_PARM_DESC(thread, "do it in a kernel thread (the default), or else in insmod itself");

static int cpu;
module_param(cpu, int, 0444);
MODULE_PARM_DESC(cpu, "the CPU to misuse; its helper runs on the next one");

#define MOST_PAGES 1028		/* more than the 1024 permanent windows */
#define FEW_PAGES 24		/* more than the 20 temporary windows of a CPU */
#define PATIENCE_MS 500		/* how long a helper may take, being killed included */

static struct page *pages[MOST_PAGES];
static struct page *low_page;
static struct page *a, *b, *extra;

/* Something to look at in each window; volatile, so that it really is looked at. */
static void touch(void *window)
{
	volatile u8 *byte = window;

	byte[0] = 0x5a;
	byte[PAGE_SIZE - 1] = byte[0];
}

/* ---- used as it should be ---- */

static void misuse_clean(void)
{
	void *p, *q;
	int round;

	for (round = 0; round < 4; round++) {
		p = kmap_atomic(a);
		q = kmap_atomic(b);
		touch(p);
		touch(q);
		kunmap_atomic(q);
		kunmap_atomic(p);

		p = kmap_atomic(low_page);
		touch(p);
		kunmap_atomic(p);
#if HAVE_LOCAL
		p = kmap_local_page(a);
		q = kmap_local_page(b);
		touch(p);
		msleep(5);	/* allowed with a local window */
		touch(q);
		kunmap_local(q + 100);	/* any address inside the page */
		kunmap_local(p);
#endif
		p = kmap(a);
		q = kmap(a);
		touch(p);
		kunmap(a);
		touch(q);
		kunmap(a);
	}
}

/* ---- leaks ---- */

static void misuse_leak_atomic(void)
{
	touch(kmap_atomic(a));
}

/* The other page is mapped as it should be, which also shows that kunmap() is recorded. */
static void misuse_leak_permanent(void)
{
	touch(kmap(a));
	touch(kmap(b));
	kunmap(b);
}

#if HAVE_LOCAL
static void misuse_leak_local(void)
{
	touch(kmap_local_page(a));
}
#endif

/* ---- order and count ---- */

static void misuse_order_atomic(void)
{
	void *p = kmap_atomic(a);
	void *q = kmap_atomic(b);

	touch(p);
	touch(q);
	kunmap_atomic(p);
	kunmap_atomic(q);
}

static void misuse_double_atomic(void)
{
	void *p = kmap_atomic(a);

	touch(p);
	kunmap_atomic(p);
	kunmap_atomic(p);
}

static void misuse_double_inner(void)
{
	void *p = kmap_atomic(a);
	void *q = kmap_atomic(b);

	touch(p);
	touch(q);
	kunmap_atomic(q);
	kunmap_atomic(q);	/* takes the window of p */
}

#if HAVE_LOCAL
static void misuse_order_local(void)
{
	void *p = kmap_local_page(a);
	void *q = kmap_local_page(b);

	touch(p);
	touch(q);
	kunmap_local(p);
	kunmap_local(q);
}

static void misuse_double_local(void)
{
	void *p = kmap_local_page(a);

	touch(p);
	kunmap_local(p);
	kunmap_local(p);
}
#endif

static noinline void nest(int depth)
{
	void *p;

	if (!depth)
		return;
#if HAVE_LOCAL
	p = kmap_local_page(pages[depth]);
	touch(p);
	nest(depth - 1);
	kunmap_local(p);
#else
	p = kmap_atomic(pages[depth]);
	touch(p);
	nest(depth - 1);
	kunmap_atomic(p);
#endif
}

/* One more than a CPU (20, up to 5.10) or a task (15, from 5.11 on) has. */
static void misuse_too_deep(void)
{
	nest(HAVE_LOCAL ? 16 : 21);
}

/* ---- the wrong argument ---- */

/* Without the cast this does not compile: see refused.c. */
static void misuse_page_atomic(void)
{
	touch(kmap_atomic(a));
	kunmap_atomic((void *)a);
}

#if HAVE_LOCAL
static void misuse_page_local(void)
{
	touch(kmap_local_page(a));
	kunmap_local((void *)a);
}
#endif

/*
 * kunmap() reads its argument as a struct page, so what lies in the window
 * decides: these bytes look like the flags of a page in high memory ...
 */
static void misuse_address(void)
{
	void *p = kmap(a);

	memset(p, 0x80, PAGE_SIZE);
	kunmap((struct page *)p);
}

/* ... and these like one of a page in low memory. */
static void misuse_address_quiet(void)
{
	void *p = kmap(a);

	memset(p, 0, PAGE_SIZE);
	kunmap((struct page *)p);
	touch(kmap(b));
	kunmap(b);
}

/* The page is in low memory, so that no window stays open because of these two. */
static void misuse_not_a_window(void)
{
	void *buffer = vmalloc(PAGE_SIZE);

	if (!buffer)
		return;
	touch(kmap_atomic(low_page));
	kunmap_atomic(buffer);
	vfree(buffer);
}

static void misuse_null(void)
{
	touch(kmap_atomic(low_page));
	kunmap_atomic(NULL);
}

static void misuse_advanced(void)
{
	u8 *p = kmap_atomic(a);
	size_t n;

	for (n = 0; n < PAGE_SIZE; n++)
		*p++ = 0;
	kunmap_atomic(p);
}

static void misuse_advanced_inner(void)
{
	u8 *p = kmap_atomic(a);
	u8 *q = kmap_atomic(b);
	size_t n;

	touch(p);
	for (n = 0; n < PAGE_SIZE; n++)
		*q++ = 0;
	kunmap_atomic(q);	/* now the address of p */
	kunmap_atomic(p);
}

/* ---- the wrong partner ---- */

static void misuse_mismatch_kmap_atomic(void)
{
	void *p = kmap(a);

	touch(p);
	kunmap_atomic(p);
}

static void misuse_mismatch_atomic_kmap(void)
{
	touch(kmap_atomic(a));
	kunmap(a);
}

#if HAVE_LOCAL
static void misuse_mismatch_kmap_local(void)
{
	void *p = kmap(a);

	touch(p);
	kunmap_local(p);
}

static void misuse_mismatch_atomic_local(void)
{
	void *p = kmap_atomic(a);

	touch(p);
	kunmap_local(p);
}

static void misuse_mismatch_local_atomic(void)
{
	void *p = kmap_local_page(a);

	touch(p);
	kunmap_atomic(p);
}
#endif

/* ---- permanent windows ---- */

static void misuse_unmapped(void)
{
	kunmap(a);
}

static void misuse_unmapped_twice(void)
{
	touch(kmap(a));
	kunmap(a);
	kunmap(a);
}

static int one_more(void *done)
{
	touch(kmap(extra));
	kunmap(extra);
	WRITE_ONCE(*(bool *)done, true);
	return 0;
}

/* The helper sleeps in kmap() until the first page is given back. */
static void misuse_pool(void)
{
	static bool done;
	struct task_struct *task;
	int n, waited;

	for (n = 0; n < LAST_PKMAP; n++)
		touch(kmap(pages[n]));
	task = kthread_run(one_more, &done, "misuse-waits");
	msleep(100);
	if (IS_ERR(task))
		pr_err("no helper\n");
	else
		pr_info("the helper %s while all %d are in use\n",
			READ_ONCE(done) ? "went on" : "waits", LAST_PKMAP);
	for (n = 0; n < LAST_PKMAP; n++)
		kunmap(pages[n]);
	for (waited = 0; !READ_ONCE(done) && waited < PATIENCE_MS; waited += 10)
		msleep(10);
}

/* ---- other tasks and CPUs ---- */

static void *handed_over;
static bool helper_done;

static int unmap_it(void *unused)
{
#if HAVE_LOCAL
	kunmap_local(handed_over);
#else
	kunmap_atomic(handed_over);
#endif
	WRITE_ONCE(helper_done, true);
	return 0;
}

static struct task_struct *helper(int (*function)(void *), int on)
{
	struct task_struct *task = kthread_create(function, NULL, "misuse-helper");

	if (IS_ERR(task))
		return NULL;
	kthread_bind(task, on);
	return task;
}

static int next_cpu(void)
{
	int next = cpumask_next(cpu, cpu_online_mask);

	return next < nr_cpu_ids ? next : cpumask_first(cpu_online_mask);
}

/* The helper may be killed on its way, so there is an end to waiting. */
static void spin_for(bool *flag)
{
	int waited;

	for (waited = 0; !READ_ONCE(*flag) && waited < PATIENCE_MS * 20; waited++)
		udelay(50);
}

static void misuse_foreign_task(void)
{
	struct task_struct *task = helper(unmap_it, cpu);

	if (!task)
		return;
#if HAVE_LOCAL
	handed_over = kmap_local_page(a);
#else
	handed_over = kmap_atomic(a);
#endif
	touch(handed_over);
	wake_up_process(task);
	msleep(100);
#if HAVE_LOCAL
	kunmap_local(handed_over);
#endif
}

static void misuse_foreign_cpu(void)
{
	struct task_struct *task = helper(unmap_it, next_cpu());

	if (!task)
		return;
#if HAVE_LOCAL
	handed_over = kmap_local_page(a);
#else
	handed_over = kmap_atomic(a);
#endif
	touch(handed_over);
	wake_up_process(task);
	spin_for(&helper_done);
#if HAVE_LOCAL
	kunmap_local(handed_over);
#else
	kunmap_atomic(handed_over);
#endif
}

static void misuse_sleep(void)
{
	void *p = kmap_atomic(a);

	touch(p);
	msleep(20);
	kunmap_atomic(p);
}

#if !HAVE_LOCAL
static bool helper_may_end;

static int hold_one(void *unused)
{
	void *p = kmap_atomic(b);

	touch(p);
	WRITE_ONCE(helper_done, true);
	spin_for(&helper_may_end);
	kunmap_atomic(p);
	return 0;
}

/* The window after our last is the first of the next CPU, which is in use. */
static void misuse_busy(void)
{
	struct task_struct *task = helper(hold_one, cpu + 1);

	if (!task)
		return;
	wake_up_process(task);
	spin_for(&helper_done);
	nest(21);
	WRITE_ONCE(helper_may_end, true);
}
#endif

/* ---- accesses: no map or unmap call is wrong ---- */

static void misuse_stale(void)
{
	void *p = kmap_atomic(a);

	touch(p);
	kunmap_atomic(p);
	touch(p);
}

/* The window shows b now. */
static void misuse_stale_quiet(void)
{
	u8 *p = kmap_atomic(a);
	u8 *q;

	p[8] = 1;
	kunmap_atomic(p);
	q = kmap_atomic(b);
	q[8] = 2;
	WRITE_ONCE(p[8], 3);
	pr_info("byte of the other page: %d\n", READ_ONCE(q[8]));
	kunmap_atomic(q);
}

static void misuse_overrun(void)
{
	u8 *p = kmap_atomic(a);

	memset(p, 0, PAGE_SIZE);
	WRITE_ONCE(p[PAGE_SIZE], 0);
	kunmap_atomic(p);
}

/* One page further on lies the window of a. */
static void misuse_overrun_quiet(void)
{
	u8 *p = kmap_atomic(a);
	u8 *q = kmap_atomic(b);

	p[0] = 1;
	WRITE_ONCE(q[PAGE_SIZE], 2);
	pr_info("byte of the other page: %d\n", READ_ONCE(p[0]));
	kunmap_atomic(q);
	kunmap_atomic(p);
}

static void misuse_page_address(void)
{
	u8 *p = page_address(a);

	pr_info("page_address() says %px\n", p);
	WRITE_ONCE(p[0], 0);
}

static const struct {
	const char *name;
	void (*run)(void);
} ways[] = {
	{ "clean", misuse_clean },
	{ "leak-atomic", misuse_leak_atomic },
	{ "leak-permanent", misuse_leak_permanent },
	{ "order-atomic", misuse_order_atomic },
	{ "double-atomic", misuse_double_atomic },
	{ "double-inner", misuse_double_inner },
	{ "too-deep", misuse_too_deep },
	{ "page-atomic", misuse_page_atomic },
	{ "address", misuse_address },
	{ "address-quiet", misuse_address_quiet },
	{ "not-a-window", misuse_not_a_window },
	{ "null", misuse_null },
	{ "advanced", misuse_advanced },
	{ "advanced-inner", misuse_advanced_inner },
	{ "mismatch-kmap-atomic", misuse_mismatch_kmap_atomic },
	{ "mismatch-atomic-kmap", misuse_mismatch_atomic_kmap },
	{ "unmapped", misuse_unmapped },
	{ "unmapped-twice", misuse_unmapped_twice },
	{ "pool", misuse_pool },
	{ "foreign-task", misuse_foreign_task },
	{ "foreign-cpu", misuse_foreign_cpu },
	{ "sleep", misuse_sleep },
	{ "stale", misuse_stale },
	{ "stale-quiet", misuse_stale_quiet },
	{ "overrun", misuse_overrun },
	{ "overrun-quiet", misuse_overrun_quiet },
	{ "page-address", misuse_page_address },
#if HAVE_LOCAL
	{ "leak-local", misuse_leak_local },
	{ "order-local", misuse_order_local },
	{ "double-local", misuse_double_local },
	{ "page-local", misuse_page_local },
	{ "mismatch-kmap-local", misuse_mismatch_kmap_local },
	{ "mismatch-atomic-local", misuse_mismatch_atomic_local },
	{ "mismatch-local-atomic", misuse_mismatch_local_atomic },
#else
	{ "busy", misuse_busy },
#endif
};

/*
 * kunmap_high() hits its BUG with kmap_lock held, and nobody gives that back: whoever wants
 * a permanent window from then on spins for ever, as does the end of insmod.  So insmod has
 * to be over by then.
 */
static bool leaves_locked(void)
{
	return !strcmp(what, "address") || !strcmp(what, "mismatch-atomic-kmap") ||
	       !strncmp(what, "unmapped", 8);
}

static void give_back(void)
{
	int n;

	for (n = 0; n < MOST_PAGES; n++)
		if (pages[n])
			__free_page(pages[n]);
	if (low_page)
		__free_page(low_page);
}

/* What lies in low memory where a high page was asked for is of no use here. */
static int get_pages(void)
{
	int n, wanted = strcmp(what, "pool") ? FEW_PAGES : MOST_PAGES;

	low_page = alloc_page(GFP_KERNEL);
	for (n = 0; n < wanted; n++) {
		pages[n] = alloc_page(GFP_HIGHUSER);
		if (!pages[n] || !PageHighMem(pages[n]))
			return -ENOMEM;
	}
	extra = pages[wanted - 1];
	a = pages[wanted - 2];
	b = pages[wanted - 3];
	return low_page ? 0 : -ENOMEM;
}

static DECLARE_COMPLETION(over);

static int misuse(void *run)
{
	pr_info("what=%s a=%px b=%px cpu=%d\n", what, a, b, raw_smp_processor_id());
	((void (*)(void))run)();
	pr_info("%s is over\n", what);
	return 0;
}

static int in_thread(void *run)
{
	if (leaves_locked()) {
		while (READ_ONCE(THIS_MODULE->state) != MODULE_STATE_LIVE)
			msleep(1);
		msleep(20);
	}
	misuse(run);
	complete_and_exit(&over, 0);
}

/*
 * A BUG kills its task.  A user task uses windows while it dies, which can take the whole
 * machine along; a kernel thread has no address space to give back.
 */
static int __init misuse_in_thread(void (*run)(void))
{
	struct task_struct *task = kthread_create(in_thread, run, "misuse");

	if (IS_ERR(task))
		return PTR_ERR(task);
	kthread_bind(task, cpu);
	wake_up_process(task);
	if (!leaves_locked() &&
	    !wait_for_completion_timeout(&over, msecs_to_jiffies(2 * PATIENCE_MS)))
		pr_info("%s did not come back\n", what);
	return 0;
}

static int __init misuse_init(void)
{
	int n, error;

	for (n = 0; n < ARRAY_SIZE(ways) && strcmp(ways[n].name, what); n++)
		;
	if (n == ARRAY_SIZE(ways)) {
		for (n = 0; n < ARRAY_SIZE(ways); n++)
			pr_info("what=%s\n", ways[n].name);
		return -EINVAL;
	}
	if (cpu < 0 || cpu >= nr_cpu_ids || !cpu_online(cpu))
		return -EINVAL;
	error = get_pages();
	if (error) {
		pr_err("no high memory to misuse\n");
		give_back();
		return error;
	}
	if (thread)
		return misuse_in_thread(ways[n].run);
	set_cpus_allowed_ptr(current, cpumask_of(cpu));
	return misuse(ways[n].run);
}

/* The pages are kept: a window that was never unmapped still shows its page. */
static void __exit misuse_exit(void)
{
}

module_init(misuse_init);
module_exit(misuse_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Deliberate misuse of kmap, kmap_atomic and kmap_local_page");
