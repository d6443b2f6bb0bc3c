"""The first file system of a machine: busybox, the drivers of the channels, and the job."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from highmem.errors import InputError, UsageError

from . import guest
from .cpio import CpioWriter
from .modules import ModuleTree, module_bytes, module_file, module_info, module_name, needs

__all__ = ["Contents", "write_initramfs"]

_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into it.

    ``job`` is the script that is run; ``run`` the shell line that runs it under supervision.
    ``modules`` is the folder of the kernel's modules, None where all is built in.  ``load`` are
    more of them to load; ``own`` are files of modules that the job loads itself.
    """

    busybox: Path
    job: str
    run: str = "sh /lab/supervise"
    modules: Path | None = None
    load: tuple[str, ...] = ()
    own: tuple[Path, ...] = ()
    workload: Path | None = None
    tree: Path | None = None
    scripts: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    """More files under their names, executable."""
    take_image: bool = False


def write_initramfs(contents: Contents, path: Path) -> None:
    """Write the archive to *path*.  Raises InputError, LabError, and OSError of *path*."""
    with open(path, "wb") as stream:
        archive = CpioWriter(stream)
        for name in guest.PREPARED:
            archive.directory(name)
        # The kernel opens it before anything is mounted.
        archive.device("dev/console", 5, 1)
        archive.file("bin/busybox", checked_busybox(contents.busybox), 0o755)
        for name in ("bin/sh", "bin/mount"):
            archive.link(name, "busybox")
        _add_modules(archive, contents)
        scripts = {**guest.FILES, **contents.scripts, "init": guest.INIT}
        for name, text in scripts.items():
            archive.data(name, text.encode(), 0o755)
        archive.data("lab/job", contents.job.encode())
        archive.data("lab/run", f"{contents.run}\n".encode())
        if contents.take_image:
            archive.data("lab/take-image", b"")
        if contents.workload is not None:
            archive.file("lab/workload", contents.workload, 0o755)
        if contents.tree is not None:
            archive.tree(checked_tree(contents.tree))
        archive.finish()


def _add_modules(archive: CpioWriter, contents: Contents) -> None:
    """The modules that /init loads, in their order, and those of the job."""
    own = {path: module_bytes(path) for path in contents.own}
    wanted = [*guest.MODULES, *contents.load]
    for path, data in own.items():
        wanted += needs(module_info(data, str(path)))
    ours = {module_name(path) for path in own}
    order: list[Path] = []
    if contents.modules is not None:
        tree = ModuleTree(contents.modules)
        builtin = _builtin(contents.modules)
        order = tree.closure(
            name for name in dict.fromkeys(wanted) if name not in ours and name not in builtin
        )
    elif contents.load:
        raise UsageError("--modprobe needs the kernel's modules (--modules DIR)")
    for path in order:
        archive.data(f"lab/modules/{module_name(path)}.ko", module_bytes(path))
    lines = "".join(f"{module_name(path)}.ko\n" for path in order)
    archive.data("lab/modules.order", lines.encode())
    for path, data in own.items():
        archive.data(f"lab/{module_file(path)}", data)


def _builtin(folder: Path) -> set[str]:
    """The names of what is built into the kernel, as its ``modules.builtin`` says."""
    for place in sorted(folder.rglob("modules.builtin")):
        lines = place.read_text(errors="replace").splitlines()
        return {module_name(Path(line)) for line in lines}
    return set()


def checked_busybox(path: Path) -> Path:
    """*path* if it is a program that runs without libraries on 32-bit x86."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise InputError(str(path), error.strerror or "cannot be read") from None
    if head[:6] != b"\x7fELF\x01\x01" or head[18:20] != b"\x03\x00":
        raise InputError(str(path), "not a busybox for 32-bit x86 (no ELF file of an i386)")
    if b"/ld-linux" in head or b"/ld-musl" in head:
        raise InputError(str(path), "needs shared libraries: a static busybox is needed")
    return path


def checked_tree(folder: Path) -> Path:
    """*folder* if it is one and leaves the lab's own files alone."""
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise InputError(str(folder), "not a directory")
    except OSError as error:
        raise InputError(str(folder), error.strerror or "cannot be read") from None
    for name in ("init", "lab", "bin/busybox"):
        if (folder / name).is_symlink() or (folder / name).exists():
            raise UsageError(
                f"{folder / name}: the lab has its own /{name}; give the tree another name for it "
                "and start it with --workload"
            )
    return folder
