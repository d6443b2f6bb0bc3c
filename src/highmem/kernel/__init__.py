"""Linux's mapping system for high memory, one room per notion, under the kernel's own names.

================  ======================================================================
``profile``       which kernel: a frozen value of features and options
``fixmap``        ``enum fixed_addresses`` and what decides it
``layout``        every address derived from it
``pages``         struct page, zones, ``page_address`` and its hash
``pgtable``       entries, ``kmap_prot``, lazy MMU mode
``context``       tasks, CPUs, preempt count, interrupts
``temporary``     what the eras share, and the index stack (2.6.37 to 5.10)
``typed``         ``km_type`` windows (up to 2.6.36)
``local``         ``kmap_local_page`` (5.11 on)
``permanent``     ``kmap`` and ``kunmap``
``boot``          the page tables of a booting kernel
``bug``, ``oops``  what the kernel says when something is wrong
``kernel``        :class:`~highmem.kernel.kernel.Kernel`, which boots them on a machine
================  ======================================================================

Nothing here is copied from Linux; each module names the files that it was read from.
"""
