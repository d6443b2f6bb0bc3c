"""What a given kernel does about a misuse, in words for its findings.

Derived from the profile's features and from what the modelled kernel itself said when it
was driven into the same state.
"""

from __future__ import annotations

from highmem.kernel.bug import KernelBug, KernelLog
from highmem.kernel.profile import Era, Profile

__all__ = ["KernelWords"]

_LOCKED = (
    " with kmap_lock held, so whoever calls kmap() or kunmap() next, on any CPU, spins for ever"
)


class KernelWords:
    """Sentences about one kernel."""

    __slots__ = ("_log", "_profile", "_said", "_silent")

    def __init__(self, profile: Profile, log: KernelLog) -> None:
        self._profile = profile
        self._log = log
        self.mark()

    def mark(self) -> None:
        """From here on, listen to what the modelled kernel says."""
        self._said = len(self._log)
        self._silent = self._log.silent_repeats

    def heard(self) -> str:
        """What the modelled kernel said since :meth:`mark`: its warning, or that it kept quiet."""
        if len(self._log) > self._said:
            splat = self._log.splats[self._said]
            return f"{splat.severity.value} in {splat.function}(): {splat.condition}"
        if self._log.silent_repeats > self._silent:
            return "nothing: WARN_ON_ONCE already warned at this place, each later case is silent"
        return "nothing: this kernel does not check it"

    def bug(self, error: KernelBug) -> str:
        """A BUG_ON of the modelled kernel."""
        splat = error.splat
        text = f"BUG in {splat.function}(): {splat.condition}; the task is killed"
        if splat.function == "kunmap_high":
            return text + _LOCKED
        if splat.function == "kmap_local_idx_push" and not self._profile.guard_slots:
            # The index counts a window that was not made.
            return f"{text}; WARNING in __kmap_local_sched_out(): pte_none(pteval) as it goes"
        return text

    @staticmethod
    def kunmap_of_no_page(*, high: bool) -> str:
        """kunmap() of an address: *high* if it is known to have come to kunmap_high()."""
        if high:
            return f"BUG in kunmap_high(): !vaddr; the task is killed{_LOCKED}"
        return "takes what lies in the window for a page's flags: nothing, or BUG in kunmap_high()"

    def unmap_too_many(self, heard: str) -> str:
        """A temporary unmap of something that a temporary map never gave."""
        if not heard.startswith("nothing"):
            return heard
        if self._profile.era is Era.LOCAL:
            counts = "BUG: scheduling while atomic when the task next sleeps or ends"
            return (
                "nothing at this call; if it was kunmap_atomic(), preemption and page faults are "
                f"now on once too often: {counts}"
            )
        return self._unbalanced("are counted wrong")

    def _unbalanced(self, faults: str) -> str:
        """Stack era: a task has called kmap_atomic() more often than kunmap_atomic(), or less."""
        if self._profile.preempt_count or self._profile.features.fault_disable_is_preempt_count:
            return (
                "nothing at this call; BUG: scheduling while atomic when its task next sleeps or "
                "ends"
            )
        return (
            f"nothing at this call; its task's page faults {faults}, so that the next one in user "
            "mode kills it (SIGSEGV)"
        )

    def killed(self, error: KernelBug) -> str:
        """The same with the warning before it, if the call gave one since :meth:`mark`."""
        warned = self._log.splats[self._said] if len(self._log) > self._said else error.splat
        if warned is error.splat:
            return self.bug(error)
        return f"WARNING in {warned.function}(): {warned.condition}, then {self.bug(error)}"

    def leak(self, *, preempt_off: bool = False) -> str:
        """A temporary window that stays open, opened with preemption on or off."""
        if self._profile.era is Era.LOCAL:
            if preempt_off:
                return (
                    "BUG: scheduling while atomic when its task next sleeps or ends, and SIGSEGV "
                    "at its next page fault in user mode, if it was kmap_atomic() that turned "
                    "preemption off; else nothing that must show"
                )
            return (
                "nothing that must show: one warning on return to user mode while lock debugging "
                "is on (a tainted kernel has it off); the task keeps its CPU and one slot less"
            )
        if self._profile.era is Era.TYPED:
            return "BUG at the next map with this km_type on this CPU: its entry is in use"
        return (
            f"{self._unbalanced('stay off')}; every later window of this CPU is one slot further "
            "on, until the slots are used up and the next CPU's windows are overwritten or hit BUG"
        )

    def sleep(self) -> str:
        """Sleeping with an atomic window."""
        # Up to 4.1 turning page faults off counts, whatever the configuration.
        if self._profile.preempt_count or self._profile.features.fault_disable_is_preempt_count:
            return "BUG: scheduling while atomic, with a backtrace; it goes on"
        return (
            "nothing: without CONFIG_PREEMPT_COUNT it does not know that it is atomic; the next "
            "task on this CPU nests its windows on this one"
        )
