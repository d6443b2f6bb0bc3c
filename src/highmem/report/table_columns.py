"""The tables of ``highmem replay --parquet`` and ``highmem sql``: names, types, meaning.

``docs/sql.md`` describes the same; a test holds them together.
"""

from __future__ import annotations

__all__ = ["TABLES"]

TABLES: dict[str, dict[str, tuple[str, str]]] = {  # table
    "events": {
        "line": ("BIGINT", "line of the recording, or the event's number in a binary one"),
        "time_ns": ("BIGINT", "time of the recording's clock"),
        "cpu": ("INTEGER", "CPU; -1 for a loss on no CPU in particular"),
        "pid": ("INTEGER", "task that ran"),
        "comm": ("VARCHAR", "its name"),
        "kind": ("VARCHAR", "map, map_return, unmap, switch, lost or flush"),
        "function": ("VARCHAR", "kernel function, in lower case without leading underscores"),
        "argument": ("VARCHAR", "what value is: page, pfn, address or count"),
        "value": ("UBIGINT", "page, frame, address or number of events"),
        "prot": ("UBIGINT", "protection bits that a map call was given; 0 if not recorded"),
        "km_type": ("SMALLINT", "km_type that the caller named (up to 2.6.36)"),
        "caller": ("VARCHAR", "caller of a map call, on its return"),
        "irqs_off": ("BOOLEAN", "interrupts were off"),
        "need_resched": ("BOOLEAN", "a reschedule was due"),
        "hardirq": ("BOOLEAN", "in a hard interrupt"),
        "softirq": ("BOOLEAN", "in a soft interrupt"),
        "preempt_depth": ("UTINYINT", "preempt-disable depth"),
        "migrate_depth": ("UTINYINT", "migrate-disable depth (5.11 and later)"),
        "next_pid": ("INTEGER", "switch: task that runs next"),
        "next_comm": ("VARCHAR", "switch: its name"),
        "state": ("VARCHAR", "switch: state in which the other task was left"),
    },
    "mappings": {
        "open_line": ("BIGINT", "line of the map call's entry"),
        "open_ns": ("BIGINT", "its time"),
        "close_line": ("BIGINT", "line of the unmap; NULL where the window stayed open"),
        "close_ns": ("BIGINT", "its time; NULL where the window stayed open"),
        "held_ns": ("BIGINT", "close_ns - open_ns"),
        "cpu": ("INTEGER", "CPU that mapped"),
        "pid": ("INTEGER", "task that mapped"),
        "comm": ("VARCHAR", "its name"),
        "caller": ("VARCHAR", "where it was called from, with the offset"),
        "caller_function": ("VARCHAR", "the same without the offset; joins callers.caller"),
        "address": ("UBIGINT", "address of the window"),
        "slot": ("SMALLINT", "number of the window on its CPU, or of the permanent window"),
        "page": ("UBIGINT", "what was mapped: address of the struct page, or frame number"),
        "page_kind": ("VARCHAR", "page or frame: what page is"),
        "depth": ("SMALLINT", "nesting depth; 1 is a window alone"),
        "permanent": ("BOOLEAN", "made by kmap()"),
    },
    "findings": {
        "rule": ("VARCHAR", "rule that was broken (highmem rules)"),
        "level": ("VARCHAR", "error, warning or note"),
        "confidence": ("VARCHAR", "certain or likely"),
        "line": ("BIGINT", "line of the recording"),
        "time_ns": ("BIGINT", "time"),
        "cpu": ("INTEGER", "CPU"),
        "task": ("VARCHAR", "name and pid, as in comm-pid"),
        "address": ("UBIGINT", "address that it is about"),
        "what": ("VARCHAR", "what happened"),
        "kernel_does": ("VARCHAR", "what that kernel itself does"),
        "evidence": ("VARCHAR", "events that lead there, one a line"),
        "fix": ("VARCHAR", "how to mend it"),
    },
    "callers": {
        "caller": ("VARCHAR", "function that called a map function"),
        "maps": ("BIGINT", "its map calls"),
        "deepest": ("INTEGER", "deepest nesting at which it mapped"),
        "closed": ("BIGINT", "windows whose unmap was seen; the times are over these"),
        "p50_ns": ("BIGINT", "median of how long they were open"),
        "p99_ns": ("BIGINT", "99th percentile of that"),
        "longest_ns": ("BIGINT", "longest of them"),
        "longest_line": ("BIGINT", "line that opened the longest"),
        "total_ns": ("BIGINT", "sum of them"),
    },
}
"""Table to column to (SQL type, meaning).  Times are nanoseconds, NULL is not known."""
