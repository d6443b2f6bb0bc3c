"""Rules and findings: the one catalogue that every front door of highmem reports by.

A :class:`Rule` is what can be wrong; a :class:`Finding` is one case of it, with where it
is, what happened, what that very kernel would do, the evidence, and how to mend it.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from highmem.errors import UsageError

__all__ = ["RULES", "Confidence", "Finding", "Level", "Rule", "Where", "rule"]


class Level(enum.Enum):
    """How bad a finding is (the words of SARIF)."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Confidence(enum.Enum):
    """How sure a finding is."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


class Rule(NamedTuple):
    """One kind of misuse."""

    name: str
    level: Level
    title: str
    explanation: str
    """What is wrong and why it matters on a machine with high memory."""
    example: str
    """A minimal piece of C that breaks the rule."""
    fix: str


class Where(NamedTuple):
    """Where a finding is: a line or event with its time in a recording, an address in an
    image, a file and position in source.  What does not apply is None."""

    line: int | None = None
    time_ns: int | None = None
    cpu: int | None = None
    task: str | None = None
    address: int | None = None
    path: str | None = None
    column: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """What is known, for JSON."""
        return {
            name: value
            for name in ("path", "line", "column", "time_ns", "cpu", "task", "address")
            if (value := getattr(self, name)) is not None
        }


class Finding(NamedTuple):
    """One case of a rule being broken."""

    rule: Rule
    where: Where
    what: str
    """What happened, in one sentence."""
    kernel_does: str
    """What that kernel itself does: BUG, WARN, an oops later, or nothing at all."""
    evidence: tuple[str, ...] = ()
    """The events (or the path) that lead there."""
    confidence: Confidence = Confidence.CERTAIN

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "rule": self.rule.name,
            "level": self.rule.level.value,
            "confidence": self.confidence.value,
            "where": self.where.to_dict(),
            "what": self.what,
            "kernel_does": self.kernel_does,
            "evidence": list(self.evidence),
            "fix": self.rule.fix,
        }


def rule(name: str) -> Rule:
    """The rule of that name; UsageError if there is none."""
    try:
        return RULES[name]
    except KeyError:
        raise UsageError(f"no rule {name!r}; there are: {', '.join(RULES)}") from None


_ALL = (  # table
    Rule(
        "leaked-window",
        Level.ERROR,
        "a window is never unmapped",
        "The window stays open after the code that opened it is done. Up to 5.10 every later "
        "atomic window of that CPU is one slot further on until the slots run out; from 5.11 on "
        "the task goes on (or ends) with one slot less and its CPU pinned. A permanent window "
        "that is leaked is one of 1024 (512) that nobody gets back.",
        "p = kmap_local_page(page);\nif (error)\n        return error;   /* p stays mapped */",
        "unmap on every way out, error paths included, in the reverse order of mapping",
    ),
    Rule(
        "unmap-order",
        Level.ERROR,
        "windows are unmapped in another order than the reverse of mapping",
        "Temporary windows are a stack. Unmapping takes the entry of the top window but the TLB "
        "entry of the address it was given: the window named is still mapped, the one on top is "
        "gone while its user may still write to it, and a stale TLB entry may hide that.",
        "a = kmap_local_page(x);\nb = kmap_local_page(y);\nkunmap_local(a);   /* b is on top */\n"
        "kunmap_local(b);",
        "unmap the window that was mapped last first",
    ),
    Rule(
        "double-unmap",
        Level.ERROR,
        "a window is unmapped twice",
        "The second unmap takes away the next window down the stack, which somebody else still "
        "uses; with none left it clears a foreign fixmap entry.",
        "kunmap_local(a);\nkunmap_local(a);",
        "unmap once for each map; clear the pointer, or unmap at one exit only",
    ),
    Rule(
        "page-not-address",
        Level.ERROR,
        "a struct page pointer is given to an unmap that takes the address",
        "kunmap_atomic() and kunmap_local() take what the map call returned. A struct page "
        "pointer lies in low memory, so nothing is unmapped and nothing is said.",
        "p = kmap_atomic(page);\nkunmap_atomic((void *)page);",
        "pass the address that the map call returned",
    ),
    Rule(
        "address-not-page",
        Level.ERROR,
        "an address is given to kunmap(), which takes the page",
        "kunmap() looks its argument up as a struct page; an address is none. What lies in the "
        "window is taken for the page's flags: nothing happens and the window stays, or the kernel "
        "BUGs with kmap_lock held.",
        "p = kmap(page);\nkunmap(p);",
        "pass the page that was mapped",
    ),
    Rule(
        "not-a-window",
        Level.ERROR,
        "an unmap is given an address that is no window and no low memory",
        "Only windows and (for low pages) linear addresses ever come out of a map call. This "
        "address came from somewhere else: a pointer that was moved, vmalloc, or garbage.",
        "p = kmap_atomic(page);\nkunmap_atomic(p + 2 * PAGE_SIZE);",
        "pass the address that the map call returned",
    ),
    Rule(
        "foreign-unmap",
        Level.ERROR,
        "a window is unmapped on another CPU or by another task than mapped it",
        "A temporary window belongs to the CPU (from 5.11 on: the task) that mapped it. Another "
        "one's unmap takes its own top window away.",
        "queue_work(...);  /* the worker unmaps what the submitter mapped */",
        "map and unmap in the same function, or hand over the page instead of the address",
    ),
    Rule(
        "too-deep",
        Level.ERROR,
        "more windows are nested than there are slots",
        "A CPU has KM_TYPE_NR (20 or 41) atomic windows, a task 15 (16) local ones. Up to 5.10, "
        "without DEBUG_HIGHMEM, one too many silently takes the first window of the next CPU.",
        "for (i = 0; i < 32; i++)\n        p[i] = kmap_local_page(pages[i]);",
        "map, use and unmap one page at a time; or vmap() for many",
    ),
    Rule(
        "sleep-in-atomic",
        Level.ERROR,
        "the task sleeps while it holds an atomic window",
        "kmap_atomic() turns preemption and page faults off until kunmap_atomic(). Sleeping in "
        "between lets another task run with these windows of the CPU on its stack.",
        "p = kmap_atomic(page);\nmsleep(1);\nkunmap_atomic(p);",
        "unmap before sleeping; from 5.11 on use kmap_local_page(), which may sleep",
    ),
    Rule(
        "stale-access",
        Level.ERROR,
        "a window is used after it was unmapped",
        "The entry is gone, so the access faults; or it hits whatever the window shows next.",
        "kunmap_local(p);\nmemset(p, 0, 8);",
        "unmap after the last use",
    ),
    Rule(
        "page-overrun",
        Level.ERROR,
        "an access goes past the end of the mapped page",
        "One call maps one page of 4 KiB. The next address is another window (the previous slot) "
        "or nothing, even where the pages follow one another on 64-bit machines.",
        "p = kmap_local_page(page);\nmemcpy(p, buf, 2 * PAGE_SIZE);",
        "map page by page, and bound each access to the page's end",
    ),
    Rule(
        "mismatched-pair",
        Level.ERROR,
        "a window is unmapped with the call of another family",
        "kmap() goes with kunmap(page), kmap_atomic() with kunmap_atomic(address), "
        "kmap_local_page() with kunmap_local(address). A wrong partner leaves the window open "
        "and unbalances preemption or page faults.",
        "p = kmap(page);\nkunmap_atomic(p);",
        "use the unmap call of the family that mapped",
    ),
    Rule(
        "advanced-pointer",
        Level.WARNING,
        "the pointer given to the unmap has been moved on",
        "The unmap masks the address to its page, so any address inside the page is good; one "
        "past its end is another window.",
        "p = kmap_atomic(page);\nwhile (n--)\n        *p++ = 0;    /* may end past it */\n"
        "kunmap_atomic(p);",
        "keep the address that the map call returned and unmap that",
    ),
    Rule(
        "unmapped-kunmap",
        Level.ERROR,
        "kunmap() of a page that is not mapped",
        "The page has no permanent window, or one without users: the kernel BUGs, with kmap_lock "
        "held, so that whoever calls kmap() or kunmap() next spins for ever.",
        "kunmap(page);      /* without kmap(page) */",
        "one kunmap() for each kmap()",
    ),
    Rule(
        "pool-exhausted",
        Level.WARNING,
        "the permanent windows are used up",
        "All 1024 (512) are in use: the next kmap() sleeps until one is given back, and if those "
        "who hold them wait for it, for ever.",
        "for (i = 0; i < 2000; i++)\n        kmap(pages[i]);",
        "hold fewer at a time; use kmap_local_page()",
    ),
    Rule(
        "unmapped-high-page",
        Level.ERROR,
        "page_address() of a page that may be in high memory",
        "For a high page that is not kmap()ed it answers NULL.",
        "memcpy(page_address(page), buf, n);",
        "map the page, or allocate it without __GFP_HIGHMEM",
    ),
    Rule(
        "escaping-window",
        Level.ERROR,
        "the address of a temporary window outlives its owner",
        "A temporary window belongs to the task (up to 5.10: the CPU) that mapped it and is only "
        "good until that task unmaps it. Kept in a global, in a struct that nobody unmaps, or "
        "given to another thread, the address is used by somebody who does not hold the window.",
        "dev->regs = kmap_local_page(page);\nqueue_work(wq, &dev->work);   /* uses dev->regs */",
        "keep the page and map it where it is used; for a mapping that lasts, kmap() or vmap()",
    ),
    Rule(
        "deprecated-api",
        Level.NOTE,
        "kmap() or kmap_atomic(), where kmap_local_page() would do",
        "kmap() takes a global lock and a slot that all share; kmap_atomic() turns preemption and "
        "page faults off. From 5.11 on kmap_local_page() needs neither. It is a safe replacement "
        "only for a window that one function maps and unmaps, nested with its others.",
        "p = kmap(page);\nmemset(p, 0, 64);\nkunmap(page);",
        "p = kmap_local_page(page); ... kunmap_local(p), unmapping in the reverse order",
    ),
    Rule(
        "unchecked-page",
        Level.ERROR,
        "a page that may be an error code is mapped",
        "read_mapping_page() and its kind return an error pointer when they fail. kmap() takes it "
        "for a struct page: a 64-bit machine faults a little later, one with high memory inside "
        "kmap() or after it has written to a table at a wild index.",
        "page = read_mapping_page(mapping, n, NULL);\nkaddr = kmap(page);",
        "test IS_ERR(page) before mapping it",
    ),
    Rule(
        "unused-window",
        Level.WARNING,
        "a window is mapped and unmapped, and nobody uses its address",
        "The mapping costs a slot for nothing; mostly the code between meant the mapped memory and "
        "works on something else, such as the structure that names the page.",
        "buf = kmap_atomic(sg_page(sg));\nmemset(sg, 0, len);     /* meant buf */\n"
        "kunmap_atomic(buf);",
        "use the address that the map call returned, or do not map",
    ),
    Rule(
        "busy-entry",
        Level.ERROR,
        "the page-table entry for a new window is in use",
        "The slot is taken although the index says that it is free: an earlier window was "
        "unmapped wrongly, leaked past the end, or overwritten. The kernel BUGs.",
        "kmap_atomic(a, KM_USER0);\nkmap_atomic(b, KM_USER0);",
        "find the unbalanced map before this one",
    ),
    Rule(
        "window-moved",
        Level.ERROR,
        "the recorded kernel chose another address than the model predicts",
        "Either an event between is missing from the recording without a mark, or the model (or "
        "the profile) is wrong about this kernel.",
        "",
        "check the profile (--profile) and that all map and unmap functions were probed; if both "
        "are right, this is a defect of highmem: please report it with the recording",
    ),
    Rule(
        "lost-events",
        Level.NOTE,
        "the recording lost events",
        "What follows a loss can not be judged until the windows are known again; it is counted "
        "as not judged, never as a misuse.",
        "",
        "record with larger buffers (buffer_size_kb, trace-cmd record -b) or fewer events",
    ),
    Rule(
        "stale-window",
        Level.ERROR,
        "a temporary window is open that nobody holds",
        "The page-table entry still shows a page although the index of its CPU (up to 5.10) or of "
        "the task that runs there (5.11 on) says that the slot is free, the CPU is idle or not "
        "there, or the slot is a guard. An unmap cleared another entry than it should; who uses "
        "the address next writes into that page.",
        "p = kmap_atomic(page);\nmsleep(1);          /* wakes up on another CPU */\n"
        "kunmap_atomic(p);   /* clears an entry of that one */",
        "find the unbalanced or misordered unmap: record that machine and replay the recording",
    ),
    Rule(
        "foreign-flags",
        Level.WARNING,
        "a window's entry has other flags than kmap_prot",
        "kmap(), kmap_atomic() and kmap_local_page() map with kmap_prot (PAGE_KERNEL). Other flags "
        "come from kmap_atomic_prot() or an io mapping, which may be meant, or from an entry that "
        "was overwritten. One that is neither empty nor present was.",
        "p = kmap_atomic_prot(page, PAGE_KERNEL_NOCACHE);",
        "see who maps with these flags; if nobody does, something writes into page tables",
    ),
    Rule(
        "frame-outside-ram",
        Level.WARNING,
        "a window shows a page frame that is no RAM",
        "Pages have windows, devices are reached by ioremap(). Only io_mapping_map_local_wc() and "
        "its kin open a window on a device; else the entry is damaged, or a frame number was "
        "taken for a page.",
        "p = kmap_atomic_pfn(bogus_pfn);",
        "check where the frame number came from; on PAE, that it was kept in 64 bits",
    ),
    Rule(
        "low-frame",
        Level.WARNING,
        "a window shows a page of low memory",
        "Low memory has its address already, so the map calls give that and open no window "
        "(unless the kernel forces them, CONFIG_DEBUG_KMAP_LOCAL_FORCE_MAP). This window was "
        "opened by frame number, or its entry was overwritten.",
        "p = kmap_local_pfn(page_to_pfn(virt_to_page(buffer)));",
        "map pages, not frames; for low memory use page_address()",
    ),
    Rule(
        "frame-mapped-twice",
        Level.ERROR,
        "one page has two permanent windows",
        "kmap() of a page that has a window gives that window. A second one means that the hash "
        "behind page_address() lost the first, or that an entry was overwritten.",
        "",
        "look for writes over page_address_htable or the page tables; kunmap() will BUG",
    ),
    Rule(
        "count-mismatch",
        Level.ERROR,
        "pkmap_count and the entry of a permanent window disagree",
        "A count of 0 is a free window with an empty entry, 1 one that nobody uses but that is "
        "still mapped, more are its users. An entry without a count is given away a second time; "
        "a count without an entry faults when it is used, or BUGs when the windows are flushed.",
        "kunmap(page);\nkunmap(page);      /* the count falls below what the entry needs */",
        "one kunmap() for each kmap(); if the counts are right, look for who overwrites entries",
    ),
)

RULES: dict[str, Rule] = {found.name: found for found in _ALL}
"""Every rule by name."""
