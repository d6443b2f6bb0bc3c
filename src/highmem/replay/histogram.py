"""Counts of times in buckets that are at most 1/32 apart: percentiles in bounded memory.

A time of 0 to 63 ns is its own bucket; above, each doubling is cut into 32.  The answer to
a percentile is the bucket's upper end, so it is at most 3.2 % too high.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["add_counts", "bucket_of", "percentile", "upper_end"]

_SUB_BITS = 5


def bucket_of(ns: int) -> int:
    """The bucket of a time in nanoseconds; negative times count as 0."""
    if ns < 2 << _SUB_BITS:
        return max(ns, 0)
    shift = ns.bit_length() - 1 - _SUB_BITS
    return (shift << _SUB_BITS) + (ns >> shift)


def upper_end(bucket: int) -> int:
    """The longest time that falls into *bucket*."""
    if bucket < 2 << _SUB_BITS:
        return bucket
    shift = (bucket >> _SUB_BITS) - 1
    return ((bucket - (shift << _SUB_BITS)) + 1 << shift) - 1


def percentile(counts: Mapping[int, int], share: float) -> int:
    """The time that *share* (0 to 1) of what was counted does not exceed; 0 if nothing was."""
    total = sum(counts.values())
    wanted, seen = share * total, 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= wanted:
            return upper_end(bucket)
    return 0


def add_counts(counts: dict[int, int], more: Mapping[int, int]) -> int:
    """Add *more* to *counts*; how many these are."""
    for index, count in more.items():
        counts[index] = counts.get(index, 0) + count
    return sum(more.values())
