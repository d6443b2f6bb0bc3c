"""Which of the machine's package sources are Debian's, and the lab's own made from them.

Nothing here knows an address: a mirror and the key it is checked with are those that the
machine's own sources name, only the suites are the lab's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DebianSource", "debian_sources", "lab_sources"]

_NAMES = frozenset(
    (
        *("bullseye", "bookworm", "trixie", "forky", "duke", "sid", "rc-buggy", "experimental"),
        *("oldoldstable", "oldstable", "stable", "testing", "unstable"),
    )
)
_SUITES = ("bookworm", "bullseye")
_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<rest>\S.*)")


@dataclass(frozen=True, slots=True)
class DebianSource:
    """One address with Debian's packages; *security* where it is the archive of those."""

    uri: str
    security: bool
    options: tuple[tuple[str, str], ...] = ()
    """What decides whether it is trusted: Signed-By, Trusted, and the like, as they stand."""


def debian_sources(lists: Iterable[Path]) -> list[DebianSource]:
    """Debian's archives among the sources in the files *lists*, each once."""
    found: dict[tuple[str, bool], DebianSource] = {}
    for path in lists:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        entries = _deb822(text) if path.suffix == ".sources" else _one_lines(text)
        for source in entries:
            found.setdefault((source.uri, source.security), source)
    return list(found.values())


def _sources(
    uris: Iterable[str], suites: Iterable[str], options: tuple[tuple[str, str], ...]
) -> Iterator[DebianSource]:
    uris = list(uris)
    for suite in suites:
        base, _, rest = suite.strip("/").partition("-")
        base, slash, _ = base.partition("/")
        if base in _NAMES:
            security = rest == "security" or bool(slash)
            for uri in uris:
                yield DebianSource(uri, security, options)


def _one_lines(text: str) -> Iterator[DebianSource]:
    """The style of ``sources.list`` (sources.list(5), ONE-LINE-STYLE FORMAT)."""
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is None:
            continue
        uri, *rest = match["rest"].split()
        pairs = (pair.partition("=") for pair in shlex.split(match["options"] or ""))
        options = tuple((key, value) for key, _, value in pairs if _matters(key))
        if len(rest) >= 2 and "main" in rest[1:]:
            yield from _sources([uri], rest[:1], options)


def _deb822(text: str) -> Iterator[DebianSource]:
    """The style of ``*.sources`` (sources.list(5), DEB822-STYLE FORMAT)."""
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and last:
                fields[last] += f"\n{line}"
                continue
            key, colon, value = line.partition(":")
            last = key.strip().lower() if colon else ""
            if last:
                fields[last] = value.strip()
        on = fields.get("enabled", "yes").lower() not in ("no", "false", "0")
        if on and "deb" in fields.get("types", "").split():
            options = tuple((key, value) for key, value in fields.items() if _matters(key))
            if "main" in fields.get("components", "").split():
                yield from _sources(
                    fields.get("uris", "").split(), fields.get("suites", "").split(), options
                )


def _matters(key: str) -> bool:
    return key.lower() in ("signed-by", "trusted", "check-valid-until", "check-date")


def lab_sources(sources: Iterable[DebianSource]) -> str:
    """The lab's own ``.sources`` file: Debian's i386 packages of its suites from *sources*."""
    stanzas = []
    for source in sources:
        ends = ("-security",) if source.security else ("", "-updates")
        options = {key.lower(): value for key, value in source.options}
        if "signed-by" not in options and "trusted" not in options:
            keyring = next((name for name in _KEYRINGS if Path(name).is_file()), None)
            if keyring:
                options["signed-by"] = keyring
        lines = [
            "Types: deb",
            f"URIs: {source.uri}",
            f"Suites: {' '.join(suite + end for suite in _SUITES for end in ends)}",
            "Components: main",
            "Architectures: i386",
            *(f"{key.title()}: {value}" for key, value in sorted(options.items())),
        ]
        stanzas.append("\n".join(lines) + "\n")
    return "\n".join(stanzas)
