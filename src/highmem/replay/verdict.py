"""What a replay found: counts, statistics, findings.  Values only, no behaviour."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from highmem import __version__
from highmem.kernel.profile import Profile
from highmem.replay.histogram import percentile, upper_end
from highmem.trace.schema import Account

if TYPE_CHECKING:
    from highmem.findings import Finding

__all__ = ["CallerStats", "CpuStats", "HeldWindow", "PermanentStats", "TaskStats", "Verdict"]


@dataclass(slots=True, eq=False)
class CallerStats:
    """What one caller of the map functions did.  Times are nanoseconds."""

    caller: str
    maps: int = 0
    deepest: int = 0
    """The deepest nesting at which it mapped; 1 is a window alone."""
    closed: int = 0
    """Its windows whose unmap was seen; the times are over these."""
    longest_ns: int = 0
    longest_line: int = 0
    """The event that opened the one held longest."""
    total_ns: int = 0
    holds: dict[int, int] = field(default_factory=dict)
    """How many were held how long, by bucket (histogram.bucket_of)."""

    def consider(self, held_ns: int, line: int) -> None:
        """A window opened at *line* was held that long; of equals the first opened counts."""
        longer = held_ns > self.longest_ns
        if (
            longer
            or not self.longest_line
            or (held_ns == self.longest_ns and line < self.longest_line)
        ):
            self.longest_ns, self.longest_line = held_ns, line

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the median and the 99th percentile instead of the buckets."""
        row = dataclasses.asdict(self)
        del row["holds"]
        row["p50_ns"] = min(percentile(self.holds, 0.5), self.longest_ns)
        row["p99_ns"] = min(percentile(self.holds, 0.99), self.longest_ns)
        return row


@dataclass(slots=True, eq=False)
class CpuStats:
    """What happened on one CPU."""

    cpu: int
    maps: int = 0
    unmaps: int = 0
    deepest: int = 0
    """The most windows that were open at once on this CPU, by one task in the local era."""


@dataclass(slots=True, eq=False)
class TaskStats:
    """What one task did."""

    task: str
    maps: int = 0
    deepest: int = 0


class HeldWindow(NamedTuple):
    """A window that was open when the recording ended (and no finding explains)."""

    address: int
    page: str
    cpu: int
    task: str
    caller: str
    line: int
    open_for_ns: int


@dataclass(slots=True, eq=False)
class PermanentStats:
    """The permanent windows, as far as the recording shows them."""

    size: int = 0
    """LAST_PKMAP."""
    maps: int = 0
    unmaps: int = 0
    reused: int = 0
    """Maps that found the page's window still there."""
    windows: int = 0
    """Different windows that were handed out."""
    most_in_use: int = 0
    flushes: int = 0
    in_use_at_end: int = 0


@dataclass(slots=True, eq=False)
class Verdict:
    """The result of replaying one recording."""

    name: str
    format: str
    profile: Profile
    profile_how: str
    """How the profile was found, in words."""
    account: Account
    first_ns: int = 0
    last_ns: int = 0
    map_calls: int = 0
    """Calls of map functions, one however many functions deep."""
    low_maps: int = 0
    """Those of them that were for pages in low memory."""
    unmap_calls: int = 0
    low_unmaps: int = 0
    switches: int = 0
    right: int = 0
    """Return events whose address is the predicted one."""
    wrong: int = 0
    not_judged: dict[str, int] = field(default_factory=dict)
    """Return events that could not be predicted, by reason."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Other things that the recording does not let one know, by kind, and how often."""
    cpus: dict[int, CpuStats] = field(default_factory=dict)
    tasks: dict[str, TaskStats] = field(default_factory=dict)
    callers: dict[str, CallerStats] = field(default_factory=dict)
    depths: dict[int, int] = field(default_factory=dict)
    """How many maps reached each nesting depth."""
    holds: dict[int, int] = field(default_factory=dict)
    """How many windows were held how long, by bucket (histogram.bucket_of)."""
    permanent: PermanentStats = field(default_factory=PermanentStats)
    held: list[HeldWindow] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def judged(self) -> int:
        """Return events that were predicted."""
        return self.right + self.wrong

    @property
    def unjudged(self) -> int:
        """Return events that were not."""
        return sum(self.not_judged.values())

    @property
    def exit_code(self) -> int:
        """0 nothing found, 1 findings, 3 incomplete (events were lost, input cut off)."""
        if any(found.rule.name != "lost-events" for found in self.findings):
            return 1
        return 3 if self.account.lost or self.account.truncated else 0

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON; numbers are decimal, times nanoseconds."""
        account = self.account
        return {
            "schema": "highmem.verdict/1",
            "version": __version__,
            "input": {
                "name": self.name,
                "format": self.format,
                "lines": account.lines,
                "events": account.events,
                "passed_over": account.passed_over,
                "rejected": account.rejected,
                "rejections": [r._asdict() for r in account.rejections],
                "lost": account.lost,
                "truncated": account.truncated,
                "notes": list(account.notes),
                "first_ns": self.first_ns,
                "last_ns": self.last_ns,
            },
            "profile": {
                "name": self.profile.name,
                "title": self.profile.title,
                "family": self.profile.family,
                "how": self.profile_how,
                "windows_per_cpu": self.profile.windows_per_cpu,
                "depth_limit": self.profile.depth_limit,
            },
            "predictions": {
                "right": self.right,
                "wrong": self.wrong,
                "not_judged": dict(sorted(self.not_judged.items())),
            },
            "calls": {
                "maps": self.map_calls,
                "low_maps": self.low_maps,
                "unmaps": self.unmap_calls,
                "low_unmaps": self.low_unmaps,
                "switches": self.switches,
            },
            "unknown": dict(sorted(self.unknown.items())),
            "cpus": [dataclasses.asdict(c) for _, c in sorted(self.cpus.items())],
            "tasks": [dataclasses.asdict(t) for _, t in sorted(self.tasks.items())],
            "callers": [c.to_dict() for _, c in sorted(self.callers.items())],
            "depths": {str(depth): count for depth, count in sorted(self.depths.items())},
            "held_ns": [
                {"up_to_ns": upper_end(bucket), "windows": count}
                for bucket, count in sorted(self.holds.items())
            ],
            "permanent": dataclasses.asdict(self.permanent),
            "held_at_end": [h._asdict() for h in self.held],
            "findings": [found.to_dict() for found in self.findings],
        }
