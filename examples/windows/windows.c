// SPDX-License-Identifier: MIT
/*
 * windows.ko: holds windows open until it is unloaded, and says in the log which.
 *
 *	insmod windows.ko permanent=3 temporary=4 sleeping=2 cpu=1
 *
 * A thread on one CPU holds the temporary windows and spins, so that they stay in the page
 * tables; from Linux 5.11 on a second thread holds some and sleeps, so that they do not.  Take
 * an image of the memory meanwhile, and `highmem image windows` must find exactly these.
 * It keeps a CPU busy: load it in a virtual machine only.
 */
#define pr_fmt(fmt) "windows: " fmt

#include <linux/completion.h>
#include <linux/highmem.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nmi.h>
#include <linux/sched.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
#define open_window(page) kmap_local_page(page)
#define close_window(address) kunmap_local(address)
#define MAY_SLEEP 1
#else
#define open_window(page) kmap_atomic(page)
#define close_window(address) kunmap_atomic(address)
#define MAY_SLEEP 0
#endif

#define MOST 64

static int permanent = 3;
module_param(permanent, int, 0444);
MODULE_PARM_DESC(permanent, "how many pages to kmap()");

static int temporary = 4;
module_param(temporary, int, 0444);
MODULE_PARM_DESC(temporary, "how many temporary windows the spinning thread opens");

static int sleeping = MAY_SLEEP ? 2 : 0;
module_param(sleeping, int, 0444);
MODULE_PARM_DESC(sleeping, "how many the sleeping thread opens (5.11 on)");

static int cpu = 1;
module_param(cpu, int, 0444);
MODULE_PARM_DESC(cpu, "where the threads run");

static struct page *pages[3 * MOST];
static int allocated;
static struct task_struct *spinner, *sleeper;
static DECLARE_COMPLETION(opened);

struct work {
	struct page **pages;
	int count;
	bool sleeps;
};

static int hold(void *data)
{
	struct work *work = data;
	void *window[MOST];
	int i;

	for (i = 0; i < work->count; i++) {
		window[i] = open_window(work->pages[i]);
		*(volatile u32 *)window[i] = 0x57696e64 + i;
		pr_info("%s cpu %d slot %d at %px pfn %lx page %px\n",
			work->sleeps ? "asleep" : "temporary", raw_smp_processor_id(), i,
			window[i], page_to_pfn(work->pages[i]), work->pages[i]);
	}
	if (!work->sleeps)
		preempt_disable();
	complete(&opened);
	while (!kthread_should_stop()) {
		if (work->sleeps) {
			set_current_state(TASK_INTERRUPTIBLE);
			if (!kthread_should_stop())
				schedule();
			__set_current_state(TASK_RUNNING);
		} else {
			cpu_relax();
			touch_softlockup_watchdog();
		}
	}
	if (!work->sleeps)
		preempt_enable();
	while (i--)
		close_window(window[i]);
	return 0;
}

static struct task_struct *start(struct work *work, const char *name)
{
	struct task_struct *task = kthread_create(hold, work, "%s", name);

	if (IS_ERR(task))
		return NULL;
	kthread_bind(task, cpu);
	get_task_struct(task);
	reinit_completion(&opened);
	wake_up_process(task);
	wait_for_completion(&opened);
	return task;
}

static void stop(struct task_struct *task)
{
	if (!task)
		return;
	kthread_stop(task);
	put_task_struct(task);
}

static void free_pages_held(void)
{
	while (allocated)
		__free_page(pages[--allocated]);
}

static struct work spins, sleeps = { .sleeps = true };

static int __init windows_init(void)
{
	int i, wanted;

	permanent = clamp(permanent, 0, MOST);
	temporary = clamp(temporary, 0, 14);
	sleeping = MAY_SLEEP ? clamp(sleeping, 0, 14) : 0;
	wanted = permanent + temporary + sleeping;
	while (allocated < wanted) {
		pages[allocated] = alloc_page(GFP_HIGHUSER);
		if (!pages[allocated] || !PageHighMem(pages[allocated++])) {
			pr_err("no high memory\n");
			free_pages_held();
			return -ENOMEM;
		}
	}
	for (i = 0; i < permanent; i++)
		pr_info("permanent at %px pfn %lx page %px\n", kmap(pages[i]),
			page_to_pfn(pages[i]), pages[i]);
	sleeps.pages = pages + permanent;
	sleeps.count = sleeping;
	if (sleeping)
		sleeper = start(&sleeps, "windows-sleep");
	spins.pages = pages + permanent + sleeping;
	spins.count = temporary;
	if (temporary)
		spinner = start(&spins, "windows-spin");
	pr_info("all open\n");
	return 0;
}

static void __exit windows_exit(void)
{
	int i;

	stop(spinner);
	stop(sleeper);
	for (i = 0; i < permanent; i++)
		kunmap(pages[i]);
	free_pages_held();
}

module_init(windows_init);
module_exit(windows_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("holds windows open, for images of memory");
