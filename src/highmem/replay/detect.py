"""Which kernel made a recording: the profile, from the recording itself.

The functions that were probed tell the era; the addresses that they returned on each CPU
tell slots per CPU, FIX_KMAP_BEGIN and the debug options; permanent windows, frames and
linear addresses tell PAE.  A candidate profile has to explain all of them; among those that
do, the release decides that some recordings have in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from highmem.compiled import load
from highmem.errors import UsageError
from highmem.kernel.layout import Layout
from highmem.kernel.profile import FAMILIES, Era, Profile, builtin_profiles, make_profile
from highmem.trace.schema import SYMBOLS, Batch, Function

if TYPE_CHECKING:
    from highmem.replay._evidence import Gatherer
else:
    Gatherer = load("highmem.replay._evidence").Gatherer

__all__ = ["Evidence", "detect"]

_LOCAL = {
    Function.KMAP_LOCAL_PAGE_PROT,
    Function.KMAP_LOCAL_PFN_PROT,
    Function.KUNMAP_LOCAL_INDEXED,
}
_HIGH_HALF = {Function.KMAP_ATOMIC_HIGH_PROT, Function.KUNMAP_ATOMIC_HIGH}
_OLD_UNMAPS = {Function.KUNMAP_ATOMIC}
_TEMPORARY_RETURNS = (
    Function.KMAP_ATOMIC,
    Function.KMAP_ATOMIC_PROT,
    Function.KMAP_ATOMIC_HIGH_PROT,
    Function.KMAP_ATOMIC_PFN,
    Function.KMAP_ATOMIC_PROT_PFN,
    Function.IOMAP_ATOMIC_PROT_PFN,
    Function.KMAP_LOCAL_PAGE_PROT,
    Function.KMAP_LOCAL_PFN_PROT,
)
# Of several names the first: which one this kernel had, the events do not say.
_NAMES = {function: name for name, function in reversed(SYMBOLS.items())}
_DEFAULT_RAM = 2 << 30
_LOWEST_WINDOW = 0xFF000000
_NR_CPUS = (32, 8, 64, 16, 4, 2, 1, 128, 256, 512)
"""Compiled numbers of CPUs to try, usual ones first: the permanent windows lie below those of
all CPUs that the kernel was compiled for."""


@dataclass(slots=True, eq=False, repr=False)
class Evidence:
    """What a recording shows about its kernel."""

    functions: set[int] = field(default_factory=set)
    windows: dict[tuple[int, int], int] = field(default_factory=dict)
    """(cpu, page address) of each temporary window returned, and how often."""
    permanent: set[int] = field(default_factory=set)
    linear: set[int] = field(default_factory=set)
    """The lowest and highest linear (low-memory) address returned."""
    pfns: set[int] = field(default_factory=set)
    """The lowest and highest frame of a call that returned a window."""
    typed: bool = False
    types: set[tuple[int, int, int]] = field(default_factory=set)
    """(cpu, km_type, page address) of each temporary window unmapped by a type."""
    max_cpu: int = 0
    pages_apart: int = 0
    """Greatest common divisor of the distances between struct pages."""
    a_page: int = 0
    release: str = ""
    """What the recording says is the kernel's release."""
    _gatherer: Gatherer = field(default_factory=Gatherer)
    _unsettled: bool = False

    def add(self, batch: Batch) -> None:
        """Take in the events of *batch*; :meth:`settle` makes use of them."""
        self._gatherer.add(batch)
        self._unsettled = True

    def settle(self) -> Evidence:
        """Say what the events showed."""
        found = self._gatherer
        found.settle()
        self._unsettled = False
        self.functions, self.permanent = found.functions, found.permanent
        self.max_cpu, self.typed = found.max_cpu, found.typed
        self.a_page, self.pages_apart = found.a_page, found.pages_apart
        self.types = {use for use in found.types if use[2] >= _LOWEST_WINDOW}
        if found.frames is not None:
            self._widen(self.pfns, *found.frames)
        self.windows = {}
        for (function, cpu, page), count in found.windows.items():
            # Windows lie in the last megabytes, linear addresses never reach them.
            if page >= _LOWEST_WINDOW and function in _TEMPORARY_RETURNS:
                self.windows[cpu, page] = self.windows.get((cpu, page), 0) + count
            elif function in _TEMPORARY_RETURNS:
                self._widen(self.linear, page, page)
        return self

    @staticmethod
    def _widen(bounds: set[int], low: int, high: int) -> None:
        every = bounds | {low, high}
        bounds.clear()
        bounds.update({min(every), max(every)})

    @property
    def ram(self) -> int:
        """Enough RAM for every frame seen, and at least 2 GiB."""
        if self._unsettled:
            self.settle()
        top = (max(self.pfns) + 1) << 12 if self.pfns else 0
        return max(_DEFAULT_RAM, -(-top // (64 << 20)) * (64 << 20))

    def families(self) -> tuple[str, ...]:
        """The families whose functions these are, most likely first."""
        if self.functions & _LOCAL:
            return ("L1", "L0")
        if self.functions & _HIGH_HALF:
            return ("S4",)
        if self.typed:
            return ("T10", "T9", "T8", "T7", "T6", "T5", "T4", "T3", "T2", "T1", "T0")
        if self.functions & _OLD_UNMAPS:
            return ("S3", "S2", "S1", "S0")
        return ("L1", "S4")


def _misfit(profile: Profile, evidence: Evidence) -> str:
    """Why *profile* cannot have made this recording, or nothing."""
    if evidence.max_cpu >= profile.nr_cpus:
        return f"CPU {evidence.max_cpu} with NR_CPUS {profile.nr_cpus}"
    layout = profile.layout(evidence.ram)
    for cpu, address in evidence.windows:
        if why := _misplaced(profile, layout, cpu, address):
            return why
    return _misfit_elsewhere(profile, layout, evidence)


def _misfit_elsewhere(profile: Profile, layout: Layout, evidence: Evidence) -> str:
    """The same without a look at the temporary windows."""
    for address in evidence.permanent:
        # Low pages that go through kmap() keep their linear address.
        if not layout.is_pkmap(address) and not layout.is_lowmem(address):
            return f"permanent window {address:#x} is not in this kernel's pkmap area"
    if evidence.linear and max(evidence.linear) >= layout.high_memory:
        return f"linear address {max(evidence.linear):#x} is above high_memory"
    forced = profile.maps_low_pages
    if evidence.pfns and not forced and min(evidence.pfns) < layout.max_low_pfn:
        return f"a window for frame {min(evidence.pfns):#x}, which is in low memory"
    return ""


def _misplaced(profile: Profile, layout: Layout, cpu: int, address: int) -> str:
    found = layout.window_of(address)
    if found is None:
        return f"window {address:#x} is outside this kernel's window area"
    owner, slot = found
    if owner != cpu:
        return f"window {address:#x} was returned on CPU {cpu} but belongs to CPU {owner}"
    guarded = profile.guard_slots or (profile.era is Era.TYPED and profile.debug_highmem)
    if guarded and slot % 2 == 0:
        return f"window {address:#x} is a guard slot"
    return ""


def _astray(evidence: Evidence) -> list[Profile]:
    """Built-in profiles that fit but for windows beyond those of their CPU: an unmap too many or
    a map too many moves the index out of them, which only debug options forbid."""
    fitting = []
    for profile in builtin_profiles().values():
        if profile.family not in evidence.families() or profile.debug_highmem:
            continue
        if profile.era is Era.TYPED or evidence.max_cpu >= profile.nr_cpus:
            continue
        layout = profile.layout(evidence.ram)
        home = _at_home(profile, layout, evidence.windows)
        if home and not _misfit_elsewhere(profile, layout, evidence):
            fitting.append(profile)
    return fitting


def _at_home(profile: Profile, layout: Layout, windows: Iterable[tuple[int, int]]) -> bool:
    """Whether each CPU was given its own first window too, and none further off than another
    CPU's worth of windows."""
    per_cpu = profile.windows_per_cpu
    slots: dict[int, set[int]] = {}
    for cpu, address in windows:
        slots.setdefault(cpu, set()).add(layout.window_address(cpu, 0) - address >> 12)
    return all(
        0 in own and -per_cpu <= min(own) <= max(own) < 2 * per_cpu for own in slots.values()
    )


def _anchored(profile: Profile, evidence: Evidence) -> bool:
    """Whether the windows begin where *profile* has them, and pages lie as far apart: several
    kernels that differ by a page or two can hold the same windows, but nesting begins with
    slot 0, and a type is its slot."""
    layout = profile.layout(evidence.ram)
    if evidence.pages_apart % profile.geometry.sizeof_struct_page:
        return False
    if profile.era is Era.TYPED:
        per_type = 2 if profile.debug_highmem else 1
        agree = sum(
            layout.window_of(page) == (cpu, per_type * (km_type + 1) - 1)
            for cpu, km_type, page in evidence.types
        )
        return 2 * agree >= len(evidence.types)
    lowest: dict[int, int] = {}
    for cpu, address in evidence.windows:
        lowest[cpu] = max(lowest.get(cpu, 0), address)
    first = 1 if profile.guard_slots else 0
    return all(page == layout.window_address(cpu, first) for cpu, page in lowest.items())


def _candidates(evidence: Evidence) -> Iterator[Profile]:
    """Built-in profiles first, then combinations of the options that move windows."""
    families = evidence.families()
    for profile in builtin_profiles().values():
        if profile.family in families:
            yield profile
    for nr_cpus in _NR_CPUS:
        if nr_cpus > evidence.max_cpu:
            for family in families:
                for debug in (False, True):
                    for pae in (True, False) if _is_pae(evidence.release) else (False, True):
                        yield from _variants(family, debug=debug, pae=pae, nr_cpus=nr_cpus)


def _variants(family: str, *, debug: bool, pae: bool, nr_cpus: int) -> Iterator[Profile]:
    base = make_profile(family, debug_highmem=debug, pae=pae, nr_cpus=nr_cpus, nx=pae)
    per_cpu = base.windows_per_cpu
    for shift in (0, 1, -1):
        geometry = base.geometry
        if shift == 1:
            geometry = geometry.but(ohci1394="before-apic")
        elif shift == -1:
            geometry = geometry.but(io_apic=False)
        name = f"{family.lower()}-{'pae' if pae else '2level'}-{per_cpu}"
        title = (
            f"Linux {FAMILIES[family].versions}, {'PAE' if pae else 'two-level'}, "
            f"{per_cpu} windows per CPU"
        )
        yield base._replace(name=name, title=title, geometry=geometry)


def _is_pae(release: str) -> bool | None:
    """Whether a kernel of that release has PAE by its name, None if that does not say it."""
    if re.search("-(pae|bigmem)(-|$)", release):
        return True
    # Debian's, which has both: 5.10.0-32-686 and 5.10.0-32-686-pae.
    return False if re.search("-[456]86$", release) else None


def _apart(profile: Profile, release: str) -> tuple[bool, bool, bool]:
    """How *profile* differs from *release*: in PAE, in its version, in anything."""
    pae = _is_pae(release)
    version, titled = (re.search(r"\d+\.\d+", text) for text in (release, profile.title))
    return (
        pae is not None and profile.pae != pae,
        version is not None and titled is not None and version[0] != titled[0],
        f" {release} " not in profile.title,
    )


def detect(batches: Iterable[Batch], release: str = "") -> tuple[Profile, Evidence, str]:
    """The profile that explains *batches*, what they showed, and the reason in words.

    *release* is the kernel's as the recording has it, if it does.  UsageError if no profile
    explains them: then ``--profile`` has to say it.
    """
    evidence = Evidence(release=release)
    for batch in batches:
        evidence.add(batch)
    evidence.settle()
    fitting: list[Profile] = []
    anchored: list[Profile] = []
    first_misfit = ""
    for profile in _candidates(evidence):
        agreed = any(not _apart(found, release)[0] for found in anchored)
        if agreed and profile.name not in builtin_profiles():
            break  # variants are a fallback: the first that fits well will do
        why = _misfit(profile, evidence)
        if not why:
            (anchored if _anchored(profile, evidence) else fitting).append(profile)
        elif not first_misfit:
            first_misfit = f"{profile.name}: {why}"
    fitting = anchored or fitting or _astray(evidence)
    if not fitting:
        raise UsageError(
            f"no known kernel fits this recording ({first_misfit}); say which with --profile"
        )
    fitting = [p for p in fitting if not _apart(p, release)[0]] or fitting
    builtin = [p for p in fitting if p.name in builtin_profiles()] or fitting[:1]
    nearest = min(_apart(profile, release) for profile in builtin)
    chosen, *others = (p for p in builtin if _apart(p, release) == nearest)
    return chosen, evidence, _explain(chosen, others, evidence)


def _explain(chosen: Profile, others: list[Profile], evidence: Evidence) -> str:
    functions = sorted(_NAMES[Function(f)] for f in evidence.functions if f)
    cpus = {cpu for cpu, _ in evidence.windows}
    parts = [f"calls {', '.join(functions)}"]
    if evidence.windows:
        parts.append(
            f"{len(evidence.windows)} different windows on {len(cpus)} CPU(s), "
            f"{chosen.windows_per_cpu} apart"
        )
    if evidence.permanent:
        parts.append(f"permanent windows from {min(evidence.permanent):#x}")
    if evidence.pfns:
        parts.append(f"lowest frame in a window {min(evidence.pfns):#x}")
    if evidence.release:
        against = _apart(chosen, evidence.release)[0]
        contradicted = ", which the addresses contradict" if against else ""
        parts.append(f"release {evidence.release}{contradicted}")
    text = "detected: " + "; ".join(parts)
    if others:
        text += f" (fits {', '.join(p.name for p in others)} as well)"
    return text
