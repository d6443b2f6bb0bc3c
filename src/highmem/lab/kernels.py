"""The kernels of the lab: Debian's own for i386, kept in the cache, and the user's.

Debian's are called by series and flavour: ``6.1-686``, ``6.1-686-pae`` (bookworm), ``5.10-686``,
``5.10-686-pae`` (bullseye).  A name stands for the newest of them that is here; one certain
kernel is called by its release, like ``6.1.0-50-686``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from highmem.errors import InputError, UsageError

from .apt import Package, PrivateApt, extract
from .cache import cache_folder, locked
from .errors import LabError

__all__ = [
    "DEFAULT_KERNEL",
    "NAMES",
    "LabKernel",
    "Offer",
    "find_busybox",
    "find_kernel",
    "kernels_here",
    "offers",
    "own_kernel",
]

_SERIES = ("6.1", "5.10")
_FLAVOURS = ("686", "686-pae")
NAMES = tuple(f"{series}-{flavour}" for series in _SERIES for flavour in _FLAVOURS)
"""The kernels of Debian that the lab knows."""
DEFAULT_KERNEL = NAMES[0]

Progress = Callable[[str], None]
_DEPENDS = re.compile(r"linux-image-(\S+)")
_MODULE = re.compile(r"(?:usr/)?lib/modules/[^/]+/(.+)")


@dataclass(frozen=True, slots=True)
class LabKernel:
    """A kernel that can be started.

    ``release`` is what ``uname -r`` prints, ``version`` that of Debian's package (empty for the
    user's own).  ``modules`` is None where there are none; ``bits`` is 32 or 64.
    """

    name: str
    release: str
    version: str
    vmlinuz: Path
    modules: Path | None
    config: Path | None = None
    system_map: Path | None = None
    bits: int = 32


@dataclass(frozen=True, slots=True)
class Offer:
    """A kernel that the machine's mirror offers, ``size`` in bytes."""

    name: str
    release: str
    version: str
    size: int


# -- here ---------------------------------------------------------------------------------


def kernels_here() -> list[LabKernel]:
    """The kernels in the cache: in the order of NAMES, the newest first of each."""
    found = []
    for place in (cache_folder() / "kernels").glob("*/kernel.json"):
        try:
            about = json.loads(place.read_text())
            name, release, version = (str(about[key]) for key in ("name", "release", "version"))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        folder = place.parent
        if name in NAMES:
            kernel = LabKernel(
                name=name,
                release=release,
                version=version,
                vmlinuz=folder / "vmlinuz",
                modules=folder / "modules",
                config=folder / "config",
                system_map=folder / "System.map",
            )
            found.append(kernel)
    found.sort(key=lambda kernel: _numbers(kernel.version), reverse=True)
    return sorted(found, key=lambda kernel: NAMES.index(kernel.name))


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", version)]


def own_kernel(vmlinuz: Path, modules: Path | None = None) -> LabKernel:
    """The user's kernel, a bzImage.  InputError where it is none."""
    try:
        with open(vmlinuz, "rb") as stream:
            head = stream.read(0x10000)
    except OSError as error:
        raise InputError(str(vmlinuz), error.strerror or "cannot be read") from None
    # Documentation/x86/boot.rst of Linux: the header's magic, and where its fields are.
    if len(head) < 0x260 or head[0x202:0x206] != b"HdrS":
        raise InputError(str(vmlinuz), "not a kernel that can be started (no bzImage of x86)")
    (protocol,) = struct.unpack_from("<H", head, 0x206)
    (text_at,) = struct.unpack_from("<H", head, 0x20E)
    text = head[text_at + 0x200 :].partition(b"\0")[0].decode("latin-1") if text_at else ""
    release = text.split(" ")[0] or "unknown"
    flags = struct.unpack_from("<H", head, 0x236)[0] if protocol >= 0x20C else 0
    if modules is not None and not modules.is_dir():
        raise InputError(str(modules), "not a directory with modules")
    return LabKernel(
        name=vmlinuz.name,
        release=release,
        version="",
        vmlinuz=vmlinuz,
        modules=modules,
        bits=64 if flags & 1 else 32,
    )


# -- to be had ----------------------------------------------------------------------------


def offers(*, progress: Progress, update: bool = False) -> list[Offer]:
    """What the mirror offers: in the order of NAMES, the newest first of each."""
    with locked() as folder:
        return _offers(_apt(folder, progress, update))


def _apt(folder: Path, progress: Progress, update: bool) -> PrivateApt:
    apt = PrivateApt(folder / "apt")
    progress("asking the mirror for its packages")
    complaint = apt.update(force=update)
    if complaint:
        progress(f"apt: {complaint}")
    return apt


def _offers(apt: PrivateApt) -> list[Offer]:
    """The kernels that the packages ``linux-image-686`` and ``-pae`` stand for."""
    named: dict[str, list[tuple[str, str]]] = {name: [] for name in NAMES}
    for package in apt.packages(f"linux-image-{flavour}" for flavour in _FLAVOURS):
        flavour = package.name.removeprefix("linux-image-")
        for series in _SERIES:
            if flavour in _FLAVOURS and package.version.startswith(f"{series}."):
                match = _DEPENDS.search(package.depends)
                if match is not None:
                    named[f"{series}-{flavour}"].append((match[1], package.version))
    releases = {release for pairs in named.values() for release, _ in pairs}
    if not releases:
        return []
    images = {
        (image.name.removeprefix("linux-image-"), image.version): image
        for image in apt.packages(f"linux-image-{release}" for release in sorted(releases))
    }
    found = []
    for name in NAMES:
        for release, version in dict.fromkeys(named[name]):
            image = images.get((release, version))
            if image is not None:
                found.append(Offer(name, release, version, image.size))
    return found


def find_kernel(
    name: str = DEFAULT_KERNEL, *, progress: Progress, newest: bool = False
) -> LabKernel:
    """The kernel *name* (or release): that in the cache, or downloaded.

    *newest*: ask the mirror even where one is here.  LabError where it cannot be had.
    """
    here = _here(name)
    if here is not None and not newest:
        return here
    if name not in NAMES and not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+-[0-9]+-686(-pae)?", name):
        raise UsageError(f"{name}: no such kernel; there are {', '.join(NAMES)}")
    with locked() as folder:
        here = _here(name)  # another process may have brought it
        if here is not None and not newest:
            return here
        apt = _apt(folder, progress, newest)
        wanted = [offer for offer in _offers(apt) if name in (offer.name, offer.release)]
        why = "the machine's mirror has none"
        for offer in wanted:
            if here is not None and here.release == offer.release:
                return here
            try:
                _install(apt, folder, offer, progress)
                break
            except LabError as error:
                why = str(error)
                progress(f"{why}; looking for an older one")
        here = _here(name)
    if here is None:
        raise LabError(f"kernel {name} cannot be had: {why}")
    return here


def _here(name: str) -> LabKernel | None:
    return next((k for k in kernels_here() if name in (k.name, k.release)), None)


def _install(apt: PrivateApt, folder: Path, offer: Offer, progress: Progress) -> None:
    """Bring the kernel of *offer* to the cache, whole or not at all."""
    progress(f"downloading linux-image-{offer.release} ({offer.size / 1e6:.0f} MB)")
    with _staging(folder / "kernels") as stage:
        package = apt.download(f"linux-image-{offer.release}", offer.version, stage)
        progress(f"unpacking {package.name}")
        extract(package, stage, _kernel_file)
        package.unlink()
        for needed in ("vmlinuz", "modules"):
            if not (stage / needed).exists():
                raise LabError(f"{package.name}: there is no {needed} in it")
        about = {"name": offer.name, "release": offer.release, "version": offer.version}
        (stage / "kernel.json").write_text(json.dumps(about) + "\n")
        os.replace(stage, folder / "kernels" / f"{offer.release}_{_plain(offer.version)}")


def _kernel_file(name: str) -> str | None:
    for what in ("vmlinuz", "config", "System.map"):
        if name.startswith(f"boot/{what}-"):
            return what
    match = _MODULE.fullmatch(name)
    return f"modules/{match[1]}" if match else None


def find_busybox(*, progress: Progress) -> Path:
    """Debian's static busybox for i386: that in the cache, or downloaded."""
    path = cache_folder() / "busybox" / "busybox"
    if path.is_file():
        return path
    with locked() as folder:
        if path.is_file():
            return path
        apt = _apt(folder, progress, update=False)
        found: list[Package] = apt.packages(["busybox-static"])
        if not found:
            raise LabError(
                "the machine's mirror has no busybox-static for i386; give --busybox FILE"
            )
        progress("downloading busybox-static")
        with _staging(folder) as stage:
            package = apt.download("busybox-static", found[0].version, stage)
            extract(package, stage, _busybox_file)
            package.unlink()
            if not (stage / "busybox").is_file():
                raise LabError(f"{package.name}: there is no bin/busybox in it")
            (stage / "busybox").chmod(0o755)
            os.replace(stage, folder / "busybox")
    return path


def _busybox_file(name: str) -> str | None:
    return "busybox" if name in ("bin/busybox", "usr/bin/busybox") else None


def _plain(version: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+~-]", "_", version)


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A new folder in *folder*, gone at the end unless it was renamed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        stage.chmod(0o755)
    except OSError as error:
        raise LabError(f"{folder}: cannot be written: {error.strerror}") from None
    try:
        yield stage
    except OSError as error:
        raise LabError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)
