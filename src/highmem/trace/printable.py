"""Text from a recording, made fit to be shown.

Task names are chosen by whoever ran the task: they may hold terminal escapes, newlines,
right-to-left marks or bytes that are no UTF-8.  Everything that a reader keeps passes
through here once, so that no renderer has to think about it.
"""

from __future__ import annotations

__all__ = ["printable"]


def printable(raw: bytes | str, limit: int | None = None) -> str:
    """*raw* with all that is not printable escaped, and no longer than *limit* characters."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escape(c) for c in text)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return text


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
