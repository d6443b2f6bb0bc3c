"""Which kernel: a frozen value that carries features, never version numbers.

The algorithms of :mod:`highmem.kernel` read :class:`Features` and the options of
:class:`Profile`; which release had which feature stands only in
:mod:`highmem.kernel.families`.  A user's own kernel is one more TOML file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from highmem.errors import ProfileError
from highmem.kernel.families import FAMILIES, KM_TYPES, Era, Family, Features
from highmem.kernel.fixmap import GEOMETRIES, Geometry
from highmem.kernel.layout import Layout

__all__ = [
    "FAMILIES",
    "KM_TYPES",
    "Era",
    "Family",
    "Features",
    "Profile",
    "builtin_profiles",
    "load_profile",
    "make_profile",
    "profile_from_table",
]


class Profile(NamedTuple):
    """One kernel: a family's features, the options it was built with, its machine's traits."""

    name: str
    title: str
    family: str
    era: Era
    features: Features
    geometry: Geometry
    pae: bool = False
    nr_cpus: int = 32
    """``NR_CPUS`` as compiled, not the number of CPUs present."""
    debug_highmem: bool = False
    """CONFIG_DEBUG_HIGHMEM: the checks, and in the typed and stack eras the fences.  In the
    local era it selects DEBUG_KMAP_LOCAL and, as x86 supports it, FORCE_MAP."""
    debug_kmap_local: bool = False
    """CONFIG_DEBUG_KMAP_LOCAL: a guard slot before each slot in use."""
    force_map: bool = False
    """CONFIG_DEBUG_KMAP_LOCAL_FORCE_MAP: low-memory pages go through windows as well."""
    preempt_count: bool = True
    """CONFIG_PREEMPT_COUNT: ``preempt_disable()`` counts (else it is a compiler barrier)."""
    preempt_rt: bool = False
    paravirt_lazy: bool = False
    """Runs under a hypervisor that queues entries in lazy MMU mode (Xen PV, VMI)."""
    trace_irqflags: bool = True
    kgdb_kdb: bool = False
    pge: bool = True
    """The CPU has global pages."""
    nx: bool = True
    """The CPU has NX (matters with PAE only)."""
    pti: bool = False
    """Page-table isolation is on: kernel entries are not global."""

    def but(self, **changes: Any) -> Profile:
        """This one with *changes*; ProfileError if the options contradict each other."""
        return self._replace(**changes)._checked()

    def _checked(self) -> Profile:
        if not 1 <= self.nr_cpus <= 4096:
            raise ProfileError(f"{self.name}: nr_cpus is {self.nr_cpus}, must be 1 to 4096")
        if self.era is not Era.LOCAL and (self.debug_kmap_local or self.force_map):
            raise ProfileError(f"{self.name}: debug_kmap_local and force_map are options of 5.11+")
        if self.force_map and not self.guard_slots:
            raise ProfileError(f"{self.name}: force_map needs debug_kmap_local, as in the kernel")
        return self

    @property
    def smp(self) -> bool:
        """Whether this is an SMP kernel (NR_CPUS is 1 on one that is not)."""
        return self.nr_cpus > 1

    @property
    def guard_slots(self) -> bool:
        """Local era: a never-mapped slot before each that is used."""
        return self.era is Era.LOCAL and (self.debug_kmap_local or self.debug_highmem)

    @property
    def maps_low_pages(self) -> bool:
        """Local era: pages of low memory get a window too (FORCE_MAP)."""
        return self.era is Era.LOCAL and (self.force_map or self.debug_highmem)

    @property
    def windows_per_cpu(self) -> int:
        """``KM_TYPE_NR`` (typed and stack era) or ``KM_MAX_IDX`` (local era).

        Fences stand before every type and before KM_TYPE_NR itself, hence 2n+1:
        13/27, 19/39, 20/41; ``KM_MAX_IDX`` is 16 or, with guard slots, 33.
        """
        if self.era is Era.LOCAL:
            return 33 if self.guard_slots else 16
        return 2 * self.features.km_types + 1 if self.debug_highmem else self.features.km_types

    @property
    def depth_limit(self) -> int:
        """How many windows one CPU (local era: one task) can hold nested.

        Local era: the BUG_ON(idx >= KM_MAX_IDX) of the push leaves 15, or 16 with guards.
        Typed era: one per ``km_type``.
        """
        if self.era is Era.LOCAL:
            return 16 if self.guard_slots else 15
        return self.features.km_types if self.era is Era.TYPED else self.windows_per_cpu

    def layout(self, ram: int) -> Layout:
        """The address space of this kernel on a machine with *ram* bytes."""
        return _layout(self.geometry, self.windows_per_cpu, self.nr_cpus, self.pae, ram)


@cache
def _layout(geometry: Geometry, windows: int, nr_cpus: int, pae: bool, ram: int) -> Layout:
    return Layout.of(geometry, windows_per_cpu=windows, nr_cpus=nr_cpus, pae=pae, ram=ram)


_OPTIONS = Profile._field_defaults


def make_profile(
    family: str,
    *,
    name: str = "",
    title: str = "",
    geometry: Geometry | None = None,
    features: Mapping[str, Any] | None = None,
    **options: Any,
) -> Profile:
    """A profile of *family* (``"T0"`` to ``"L1"``) with *options* as in :class:`Profile`.

    *features* overrides single features of the family.  Raises ProfileError.
    """
    if (found := FAMILIES.get(family)) is None:
        raise ProfileError(f"no family {family!r}; there are {', '.join(FAMILIES)}")
    _known("option", options, _OPTIONS)
    chosen = found.features
    if features:
        _known("feature", features, Features._fields)
        chosen = chosen.but(**features)
    profile = Profile(
        name=name or family.lower(),
        title=title or f"Linux {found.versions}",
        family=family,
        era=found.era,
        features=chosen,
        geometry=geometry or GEOMETRIES[found.geometry],
        **options,
    )
    return profile._checked()


def profile_from_table(table: Mapping[str, Any], origin: str) -> Profile:
    """The profile that a TOML document says; *origin* names it in errors.

    Keys: ``name``, ``title``, ``family``, optionally ``kernel`` (a key of GEOMETRIES), the
    options of :class:`Profile`, and the tables ``[geometry]`` and ``[features]``.
    """
    rest = dict(table)
    try:
        name, family = str(rest.pop("name")), str(rest.pop("family"))
    except KeyError as missing:
        raise ProfileError(f"{origin}: has no {missing.args[0]!r}") from None
    title = str(rest.pop("title", name))
    kernel = rest.pop("kernel", None)
    overrides, features = rest.pop("geometry", {}), rest.pop("features", {})
    try:
        if not isinstance(overrides, Mapping) or not isinstance(features, Mapping):
            raise ProfileError("[geometry] and [features] must be tables")
        if family not in FAMILIES:
            raise ProfileError(f"no family {family!r}; there are {', '.join(FAMILIES)}")
        preset = str(kernel or FAMILIES[family].geometry)
        _known("kernel", [preset], GEOMETRIES)
        _known("geometry key", overrides, Geometry._fields)
        geometry = GEOMETRIES[preset].but(**overrides)
        for key, value in rest.items():
            _check_type(key, value)
        return make_profile(
            family, name=name, title=title, geometry=geometry, features=features, **rest
        )
    except (ProfileError, TypeError, ValueError) as error:
        raise ProfileError(f"{origin}: {error}") from None


def _check_type(key: str, value: object) -> None:
    if key not in _OPTIONS:
        return  # make_profile names it, with the nearest known one
    wanted = type(_OPTIONS[key])
    if type(value) is not wanted:
        raise ProfileError(f"{key} must be {'a number' if wanted is int else 'true or false'}")


def _known(what: str, given: Any, known: Any) -> None:
    for key in given:
        if key not in known:
            import difflib  # here: every start would wait for it

            near = difflib.get_close_matches(str(key), [str(k) for k in known], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ProfileError(f"no {what} {key!r}{hint}")


@cache
def builtin_profiles() -> dict[str, Profile]:
    """The profiles that come with highmem, by name."""
    folder = os.path.join(os.path.dirname(__file__), "profiles")
    names = sorted(name for name in os.listdir(folder) if name.endswith(".toml"))
    profiles = [profile_from_table(_document(os.path.join(folder, name)), name) for name in names]
    return {profile.name: profile for profile in profiles}


def _document(path: str) -> dict[str, Any]:
    with open(path, "rb") as stream:
        return tomllib.load(stream)


def load_profile(name: str) -> Profile:
    """A built-in profile by name, or one from a TOML file by path.  Raises ProfileError."""
    if name in builtin_profiles():
        return builtin_profiles()[name]
    if not name.endswith(".toml") and not os.path.isfile(name):
        known = ", ".join(builtin_profiles())
        raise ProfileError(f"no profile {name!r}; built in: {known}; or give a TOML file")
    try:
        table = _document(name)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"{name}: cannot be read as a profile: {error}") from None
    return profile_from_table(table, name)
