"""What a given kernel does about a misuse, in words for its findings.

Derived from the profile's features and from what the modelled kernel itself said when it
was driven into the same state.
"""

from __future__ import annotations

from highmem.kernel.bug import KernelBug, KernelLog
from highmem.kernel.profile import Era, Profile

__all__ = ["KernelWords"]


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

    @staticmethod
    def bug(error: KernelBug) -> str:
        """A BUG_ON of the modelled kernel."""
        splat = error.splat
        return f"BUG in {splat.function}(): {splat.condition}; the task is killed"

    def killed(self, error: KernelBug) -> str:
        """The same with the warning before it, if the call gave one since :meth:`mark`."""
        warned = self._log.splats[self._said] if len(self._log) > self._said else error.splat
        if warned is error.splat:
            return self.bug(error)
        return f"WARNING in {warned.function}(): {warned.condition}, then {self.bug(error)}"

    def leak(self) -> str:
        """A temporary window that stays open."""
        if self._profile.era is Era.LOCAL:
            return (
                "nothing that must show: one warning on return to user mode while lock debugging "
                "is on (a tainted kernel has it off); the task keeps its CPU and one slot less"
            )
        if self._profile.era is Era.TYPED:
            return "BUG at the next map with this km_type on this CPU: its entry is in use"
        return (
            "nothing: every later window of this CPU is one slot further on, until the slots are "
            "used up and the next CPU's windows are overwritten or hit BUG"
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
