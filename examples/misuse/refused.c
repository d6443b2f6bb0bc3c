// SPDX-License-Identifier: MIT
/*
 * This must not compile: the kernel refuses a struct page where the address of
 * a window belongs.  `build` tries it, and complains if it does compile.
 */
#include <linux/highmem.h>
#include <linux/module.h>

static int __init refused_init(void)
{
	struct page *page = alloc_page(GFP_HIGHUSER);

	if (!page)
		return -ENOMEM;
	memset(kmap_atomic(page), 0, PAGE_SIZE);
	kunmap_atomic(page);
	__free_page(page);
	return 0;
}

module_init(refused_init);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("A struct page passed to kunmap_atomic()");
