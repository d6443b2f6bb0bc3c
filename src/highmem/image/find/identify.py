"""Which kernel an image holds: its release, symbols, profile and layout, and how each is known.

A fact read out of the image outweighs one that is given, and that outweighs a default; every
answer comes with the words for where it is from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from highmem.errors import HighmemError, InputError
from highmem.image.find.roots import Evidence, Root
from highmem.image.find.symbols import Symbols
from highmem.kernel.families import FAMILIES
from highmem.kernel.layout import Layout
from highmem.kernel.layout_geometry import GEOMETRIES, Geometry
from highmem.kernel.profile import Profile, builtin_profiles, make_profile
from highmem.machine.entry import GLOBAL, NX

__all__ = ["Measured", "choose_profile", "fit_layout", "fit_profile", "moved_symbols"]

_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Values of a kernel's variables, None where they could not be read."""

    fixaddr_top: int | None = None
    high_memory: int | None = None
    max_mapnr: int | None = None
    supported_pte_mask: int | None = None
    default_kernel_pte_mask: int | None = None
    window_bounds: tuple[int, int] | None = None
    """FIX_KMAP_BEGIN and FIX_KMAP_END."""


def choose_profile(release: str | None, is_pae: bool) -> tuple[Profile, str]:
    """The built-in profile nearest to *release* (``uname -r``), and why it."""
    if release is None:
        name = "debian-6.1-686-pae" if is_pae else "debian-6.1-686"
        return builtin_profiles()[name], "a guess: no banner found; give --profile"
    for profile in builtin_profiles().values():
        if f" {release} " in profile.title and profile.pae == is_pae:
            return profile, f"its release is {release}"
    version = _version(release)
    for profile in builtin_profiles().values():
        words = _RELEASE.search(profile.title)
        if not words or profile.pae != is_pae or not profile.name.startswith("debian-"):
            continue
        if _version(words[0])[:2] == version[:2]:
            return profile, f"the nearest to release {release}; its configuration may differ"
    family = _latest({name: found.versions for name, found in FAMILIES.items()}, version)
    kernel = _latest({name: name for name in GEOMETRIES}, version)
    profile = make_profile(
        family,
        name=f"linux-{version[0]}.{version[1]}{'-pae' if is_pae else ''}",
        title=f"Linux {release}",
        geometry=GEOMETRIES[kernel],
        pae=is_pae,
        nx=is_pae,
    )
    return profile, f"made for release {release}: family {family}, layout of {kernel}, defaults"


def _version(text: str) -> tuple[int, ...]:
    found = _RELEASE.search(text)
    return tuple(int(part or 0) for part in found.groups()) if found else (0, 0, 0)


def _latest(starts: Mapping[str, str], version: tuple[int, ...]) -> str:
    """The last key whose release is not after *version*; the first if all are."""
    best = next(iter(starts))
    for name, text in starts.items():
        if _version(text) <= version:
            best = name
    return best


def fit_profile(profile: Profile, measured: Measured) -> tuple[Profile, tuple[str, ...]]:
    """*profile* with what the image shows otherwise, and a line for each thing compared."""
    notes = []
    changes: dict[str, bool] = {}
    supported, default = measured.supported_pte_mask, measured.default_kernel_pte_mask
    if supported is not None:
        nx = bool(supported & NX) and profile.pae
        if nx != profile.nx:
            changes["nx"] = nx
            notes.append(f"NX is {'on' if nx else 'off'}: __supported_pte_mask")
    if supported is not None and default is not None:
        pge, pti = bool(supported & GLOBAL), bool(supported & GLOBAL and not default & GLOBAL)
        if (pge, pti) != (profile.pge, profile.pti):
            changes |= {"pge": pge, "pti": pti}
            why = "no global pages" if not pge else f"page-table isolation {'on' if pti else 'off'}"
            notes.append(f"{why}: __default_kernel_pte_mask")
    fitted = profile.but(**changes) if changes else profile
    if measured.window_bounds is not None:
        fitted, note = _fit_windows(fitted, *measured.window_bounds)
        notes.append(note)
    return fitted, tuple(notes)


def _fit_windows(profile: Profile, begin: int, end: int) -> tuple[Profile, str]:
    """Fit NR_CPUS, the debug option and the fixmap to the bounds in the kernel's code."""
    found = f"FIX_KMAP_BEGIN {begin} and FIX_KMAP_END {end} in the kernel's code"
    layout = profile.layout(1 << 30)
    if (begin, end) == (layout.FIX_KMAP_BEGIN, layout.FIX_KMAP_END):
        return profile, f"{found} confirm the windows"
    total = end - begin + 1
    geometries: list[Geometry] = [profile.geometry]
    if profile.geometry.ohci1394 == "none":
        geometries.append(profile.geometry.but(ohci1394="before-apic"))
    for debug in (profile.debug_highmem, not profile.debug_highmem):
        for geometry in geometries:
            tried = profile.but(debug_highmem=debug, geometry=geometry)
            count, rest = divmod(total, tried.windows_per_cpu)
            if rest or not 1 <= count <= 4096:
                continue
            tried = tried.but(nr_cpus=count)
            fixed = tried.layout(1 << 30)
            if (begin, end) == (fixed.FIX_KMAP_BEGIN, fixed.FIX_KMAP_END):
                return tried, f"{found}: NR_CPUS {count}, {tried.windows_per_cpu} windows per CPU"
    return profile, f"{found} do not fit profile {profile.name}: window addresses may be wrong"


def fit_layout(
    profile: Profile, root: Root, measured: Measured, ram_end: int
) -> tuple[Layout, tuple[str, ...]]:
    """The layout of *profile* as this machine had it, and a line for each thing compared.

    *ram_end* is the physical address behind the image's RAM, for a kernel that does not say.

    Where low memory ends and RAM ends is taken from the kernel's variables, else from the
    tables; what disagrees with the profile is fitted by the boot parameter that moves it.
    """
    if not root.evidence.is_kernel:
        # Tables that were given, and are no kernel's.
        layout = _layout(profile, profile.geometry, max(ram_end >> 12, 1))
        return layout, ("no direct mapping: the profile's layout is assumed",)
    measured, notes = _sensible(measured, root.evidence)
    try:
        layout, more = _fitted(profile, root.evidence, measured, ram_end)
    except HighmemError as error:
        bare = Measured()
        layout, more = _fitted(profile, root.evidence, bare, root.evidence.end << 12)
        notes.append(f"the kernel's variables contradict each other, and are left aside: {error}")
    return layout, (*notes, *more)


def _sensible(measured: Measured, evidence: Evidence) -> tuple[Measured, list[str]]:
    """*measured* without values that no kernel has, and a line for each of those."""
    top, high, pages = measured.fixaddr_top, measured.high_memory, measured.max_mapnr
    offset = evidence.page_offset
    wrong = {}
    if top is not None and (top % 4096 or top < 0xF000_0000):
        wrong["fixaddr_top"] = ("__FIXADDR_TOP", top)
    if high is not None and (high % 4096 or not offset + (4 << 20) <= high < 0xFF80_0000):
        wrong["high_memory"] = ("high_memory", high)
    if pages is not None and not evidence.linear // 2 <= pages <= 1 << 24:
        wrong["max_mapnr"] = ("max_mapnr", pages)
    notes = [
        f"{name} is {value:#x}, which no kernel has: left aside" for name, value in wrong.values()
    ]
    return replace(measured, **dict.fromkeys(wrong)), notes


def _fitted(
    profile: Profile, evidence: Evidence, measured: Measured, ram_end: int
) -> tuple[Layout, list[str]]:
    """The layout with the boot parameters that explain what was measured."""
    notes = []
    low, how = evidence.end, "the direct mapping's end"
    if measured.high_memory is not None:
        low, how = (measured.high_memory - evidence.page_offset) >> 12, "high_memory"
    top = max(measured.max_mapnr or ram_end >> 12, low)
    geometry = profile.geometry.but(page_offset=evidence.page_offset)
    if evidence.page_offset != profile.geometry.page_offset:
        notes.append(f"PAGE_OFFSET {evidence.page_offset:#x}: the direct mapping begins there")
    if measured.fixaddr_top is not None and measured.fixaddr_top != geometry.fixaddr_top:
        reserve = (1 << 32) - 4096 - measured.fixaddr_top
        geometry = geometry.but(reservetop_param=reserve)
        notes.append(f"FIXADDR_TOP {measured.fixaddr_top:#x}: reservetop={reserve:#x} was given")
    layout = _layout(profile, geometry, top)
    if layout.max_low_pfn != low:
        geometry, note = _fit_low(layout, geometry, low, top)
        layout = _layout(profile, geometry, top)
        notes.append(note)
    if layout.max_low_pfn == low:
        notes.append(f"{how} confirms that low memory ends at {low << 12:#x}")
    else:
        notes.append(
            f"{how} says that low memory ends at {low << 12:#x}, the profile {profile.name} "
            f"{layout.max_low_pfn << 12:#x}: areas above may be elsewhere"
        )
    return layout, notes


def _layout(profile: Profile, geometry: Geometry, max_pfn: int) -> Layout:
    return Layout.of(
        geometry,
        windows_per_cpu=profile.windows_per_cpu,
        nr_cpus=profile.nr_cpus,
        pae=profile.pae,
        ram=((0, max_pfn << 12),),
    )


def _fit_low(layout: Layout, geometry: Geometry, low: int, top: int) -> tuple[Geometry, str]:
    """The boot parameter that ends low memory at frame *low* with RAM up to frame *top*."""
    if top <= layout.MAXMEM >> 12:
        size = (top - low) << 12
        return geometry.but(highmem_param=size), f"highmem={size >> 10}K was given"
    # What vmalloc gets is what low memory leaves, the hole between them included.
    reserve = layout.VMALLOC_END - geometry.page_offset - (low << 12)
    if geometry.vmalloc_rule == "below-vmalloc-end":
        reserve -= geometry.vmalloc_offset
    if not 0 < reserve < 1 << 31:
        return geometry, "no vmalloc= explains where low memory ends"
    return geometry.but(vmalloc_param=reserve), f"vmalloc={reserve >> 10}K was given"


def moved_symbols(
    given: Symbols, anchors: Mapping[str, int], text: int | None
) -> tuple[Symbols, str]:
    """*given* symbols moved to where the kernel ran (KASLR), and how far.

    *anchors* are addresses that are known from the image, *text* is where the kernel's text
    begins in it.  InputError if they do not fit together: another kernel's file.
    """
    distances = {
        address - given.addresses[name]
        for name, address in anchors.items()
        if name in given.addresses
    }
    if not distances and text is not None and "_text" in given.addresses:
        distances = {text - given.addresses["_text"]}
    if not distances:
        return given, "not checked: it has no symbol that the image shows"
    if len(distances) > 1 or (distance := distances.pop()) % 4096:
        raise InputError(given.origin, "belongs to another kernel than the image: symbols differ")
    if not distance:
        return given, "they fit the image as they are"
    return given.moved(distance), f"moved by {distance:#x} to fit the image (KASLR)"
