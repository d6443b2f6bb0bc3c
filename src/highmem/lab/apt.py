"""Debian's i386 packages through the machine's apt, without root and beside its own state.

apt is given folders of its own (lists, cache, an empty status), the architecture i386, and
sources made from the machine's own (see :mod:`highmem.lab.aptsources`); proxies and the like
are taken from its configuration.  apt checks the signatures of the lists and the hashes of the
packages; what it gives is measured against the hash once more, so a file that was cut off by a
full disk is not used either.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .aptsources import debian_sources, lab_sources
from .children import dying_with_us
from .errors import LabError
from .tarball import place

__all__ = ["Package", "PrivateApt", "extract"]

_LISTS_AGE = 24 * 3600.0
_UPDATE_TIMEOUT = 600.0
_DOWNLOAD_TIMEOUT = 1800.0
_URI_LINE = re.compile(r"'(?P<uri>[^']*)' (?P<name>\S+) (?P<size>[0-9]+) ?(?P<hash>\S*)")


@dataclass(frozen=True, slots=True)
class Package:
    """A package that a mirror offers; ``depends`` as it stands there, ``size`` in bytes."""

    name: str
    version: str
    depends: str
    size: int


class PrivateApt:
    """apt with its state in *folder*.  LabError where this machine has none, or no Debian."""

    def __init__(self, folder: Path) -> None:
        for program in ("apt-get", "apt-cache", "apt-config", "dpkg-deb"):
            if shutil.which(program) is None:
                raise LabError(
                    f"no {program}: this machine cannot get Debian's kernels; name your own with "
                    "--kernel VMLINUZ --modules DIR --busybox FILE"
                )
        self._folder = folder
        self._config = folder / "apt.conf"

    # -- setting up -----------------------------------------------------------------------

    def prepare(self) -> None:
        """Write its configuration, from the machine's as it is now."""
        sources = debian_sources(_source_lists())
        if not sources:
            raise LabError(
                "apt has no source of Debian packages on this machine; name your own kernel with "
                "--kernel VMLINUZ --modules DIR --busybox FILE"
            )
        try:
            for name in ("lists/partial", "cache/archives/partial", "sources"):
                (self._folder / name).mkdir(parents=True, exist_ok=True)
            (self._folder / "status").touch()
            (self._folder / "sources" / "lab.sources").write_text(lab_sources(sources))
            self._config.write_text(self._configuration())
        except OSError as error:
            raise LabError(f"{self._folder}: cannot be written: {error.strerror}") from None

    def _configuration(self) -> str:
        folder = self._folder
        settings = {
            "Dir::State": folder,
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": folder / "sources",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architecture": "i386",
            "APT::Architectures": "i386",
            # Its folders are ours alone: the user that apt changes to could not write there.
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
        }
        kept = [
            line
            for line in _output(["apt-config", "dump"], 60).splitlines()
            if line.startswith("Acquire::")
            and not line.startswith(("Acquire::IndexTargets", "Acquire::Languages"))
        ]
        return "\n".join([*kept, *(f'{key} "{value}";' for key, value in settings.items()), ""])

    def update(self, *, force: bool = False) -> str:
        """Fetch the lists of packages where they are older than a day, or *force*.

        What apt complained of, in one line; a mirror that lacks one suite gives the others.
        """
        stamp = self._folder / "updated"
        try:
            age = time.time() - stamp.stat().st_mtime
        except OSError:
            age = _LISTS_AGE
        if 0 <= age < _LISTS_AGE and not force:
            return ""
        self.prepare()
        done = self._run(["apt-get", "-q", "update"], _UPDATE_TIMEOUT)
        complaint = _complaint(done)
        if done.returncode == 0 or self.packages(["busybox-static"]):
            stamp.touch()
        return complaint

    # -- asking and getting -----------------------------------------------------------------

    def packages(self, names: Iterable[str]) -> list[Package]:
        """All versions of the packages *names*, as the lists have them, newest first each."""
        done = self._run(["apt-cache", "show", "--all-versions", *names], 60)
        found = []
        for stanza in done.stdout.split("\n\n"):
            fields = {
                key: value.strip()
                for key, colon, value in (line.partition(":") for line in stanza.splitlines())
                if colon and not key.startswith(" ")
            }
            if "Package" in fields and "Version" in fields:
                size = fields.get("Size", "0")
                found.append(
                    Package(
                        fields["Package"],
                        fields["Version"],
                        fields.get("Depends", ""),
                        int(size) if size.isdigit() else 0,
                    )
                )
        return found

    def download(self, name: str, version: str, into: Path) -> Path:
        """The file of a package, in the folder *into*.

        LabError where the mirror has it no more, or it is not what the archive says it is.
        """
        wanted = f"{name}={version}"
        told = self._run(["apt-get", "-q", "download", "--print-uris", wanted], 60)
        match = _URI_LINE.search(told.stdout)
        if match is None:
            raise LabError(f"{wanted}: {_complaint(told) or 'apt does not know it'}")
        done = self._run(["apt-get", "-q", "download", wanted], _DOWNLOAD_TIMEOUT, cwd=into)
        path = into / match["name"]
        if done.returncode != 0 or not path.is_file():
            raise LabError(f"{wanted}: {_complaint(done) or 'apt did not bring it'}")
        _measure(path, int(match["size"]), match["hash"])
        return path

    def _run(
        self, command: list[str], timeout: float, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        if not self._config.is_file():
            self.prepare()
        environment = {**os.environ, "APT_CONFIG": str(self._config), "LC_ALL": "C.UTF-8"}
        try:
            return subprocess.run(
                dying_with_us(command),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"{command[0]} took longer than {timeout:g} seconds") from None
        except OSError as error:
            raise LabError(f"{command[0]} cannot be started: {error.strerror}") from None


def _measure(path: Path, size: int, told: str) -> None:
    """LabError unless the file *path* has *size* bytes and the hash *told* (``SHA256:...``)."""
    kind, _, expected = told.partition(":")
    if path.stat().st_size != size:
        found = path.stat().st_size
        path.unlink()
        raise LabError(f"{path.name}: cut off: {found} of {size} bytes came")
    if kind.lower() not in ("sha256", "sha512"):
        raise LabError(f"{path.name}: the archive gives no hash that it could be checked with")
    digest = hashlib.new(kind.lower())
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != expected:
        path.unlink()
        raise LabError(f"{path.name}: not what the archive says: its {kind} is another")


def extract(package: Path, folder: Path, wanted: Callable[[str], str | None]) -> int:
    """Unpack files of the Debian package *package* to *folder*; how many.

    *wanted* says for a name in the package (``boot/vmlinuz-...``) under which name it goes to
    *folder*, or None.  LabError where the package is broken.
    """
    count = 0
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    target = wanted(member.name.removeprefix("./")) if member.isreg() else None
                    if target is not None:
                        place(archive, member, folder, target)
                        count += 1
        except (tarfile.TarError, EOFError) as error:
            process.kill()
            raise LabError(f"{package.name}: cannot be unpacked: {error}") from None
        except OSError as error:
            process.kill()
            raise LabError(f"{folder}: cannot be written: {error.strerror}") from None
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise LabError(f"{package.name}: cannot be unpacked: it is broken")
    return count


def _source_lists() -> list[Path]:
    """The files in which the machine's apt has its sources."""
    text = _output(
        [
            "apt-config",
            "shell",
            "LIST",
            "Dir::Etc::sourcelist/f",
            "PARTS",
            "Dir::Etc::sourceparts/d",
        ],
        60,
    )
    places = dict(re.findall(r"^(\w+)='(.*)'$", text, re.MULTILINE))
    lists = [Path(places.get("LIST", "/etc/apt/sources.list"))]
    parts = Path(places.get("PARTS", "/etc/apt/sources.list.d"))
    if parts.is_dir():
        lists += sorted(path for path in parts.iterdir() if path.suffix in (".list", ".sources"))
    return lists


def _output(command: list[str], timeout: float) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"{command[0]} does not work here: {error}") from None


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The first error line of apt, without its mark."""
    for line in (done.stderr + "\n" + done.stdout).splitlines():
        if line.startswith("E: "):
            return line[3:].strip()
    return ""
