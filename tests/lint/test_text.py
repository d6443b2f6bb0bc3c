from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.compiled import load_source
from highmem.lint.paths.analyse import BESIDE_WINDOWS, Scope
from highmem.lint.syntax import _bytes, text

INTERPRETED = load_source("highmem.lint.syntax._bytes", "highmem_lint_bytes_interpreted")
both_ways = pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            _bytes,
            id="compiled",
            marks=pytest.mark.skipif(not _bytes.COMPILED, reason="not compiled here"),
        ),
        pytest.param(INTERPRETED, id="interpreted"),
    ],
)
C_LIKE = st.lists(
    st.sampled_from(
        [b"/*", b"*/", b"//", b'"', b"'", b"\\", b"\n", b"#", b" ", b"\t", b"{", b"}", b"(", b")",
         b";", b"if", b"x9", b"9x", b"_", b"'a'", b'"s"', b"\\\n", b"'\\''", b"\f", b"\x1c"]
    ),
    max_size=40,
).map(b"".join)  # fmt: skip

BLANKED = {
    "a comment": (b"a/* b\n*/c", b"a    \n  c"),
    "a comment to the end of the line": (b"a // b\nc", b"a     \nc"),
    "carried on by a backslash": (b"// b\\\nc\nd", b"     \n \nd"),
    "a comment without end": (b"a /* b", b"a     "),
    "a string": (b'f("a\\"b");', b'f("    ");'),
    "a string without end": (b'f("ab\ng', b"f(   \ng"),
    "no comment in a string": (b'"/*" a', b'"  " a'),
    "a character": (b"x = '\"';", b"x = '0';"),
    "an escaped character": (b"'\\n' '\\'' '\\x7f'", b"'00' '00' '0000'"),
    "no character": (b"don't", b"don't"),
    "too long for a character": (b"'123456789'", b"'123456789'"),
}


@both_ways
@pytest.mark.parametrize("name", BLANKED)
def test_what_is_blanked(way: ModuleType, name: str) -> None:
    before, after = BLANKED[name]
    assert bytes(way.blank(before)) == after
    assert bytes(text._blank(before)) == after


@both_ways
def test_directives_end_with_their_line_unless_it_is_carried_on(way: ModuleType) -> None:
    code = b"#if A\n int a; # b\n  # define C \\\n  d\nint e;\n"
    for find in (way.directives, text._directives):
        mine = bytearray(code)
        assert [code[slice(*one)] for one in find(mine)] == [b"#if A", b"  # define C \\\n  d"]
        assert bytes(mine) == b"     \n int a; # b\n" + b" " * 14 + b"\n   \nint e;\n"


@both_ways
@given(C_LIKE)
def test_bytes_and_patterns_say_the_same(way: ModuleType, data: bytes) -> None:
    code, other = way.blank(data), text._blank(data)
    assert code == other and len(code) == len(data)
    assert way.directives(code) == text._directives(other)
    assert code == other
    plain = bytes(code)
    assert way.calls_in(plain) == text._calls_in(plain)
    at, chunk, depth = 0, 0, 0
    while at >= 0:
        found = way.next_brace(plain, at, chunk, depth)
        assert found == text._next_brace(plain, at, chunk, depth)
        at, chunk, depth = found
        if at >= 0:
            ends = [way.closing(plain, at, deepest) for deepest in (2, 200)]
            assert ends == [text._closing(plain, at, deepest) for deepest in (2, 200)]
            at = ends[1]


@both_ways
@given(
    st.lists(st.binary(min_size=2, max_size=6), min_size=1, max_size=9, unique=True),
    st.lists(st.sampled_from([b"ab", b"ba", b"kmap", b"kunmap", b"\0"]), max_size=300),
    st.integers(0, 400),
)
def test_names_are_found_wherever_they_are(
    way: ModuleType, names: list[bytes], parts: list[bytes], at: int
) -> None:
    plain = b"".join(parts)
    for data in (plain, plain[:at] + names[0] + plain[at:]):
        found = way.Names(tuple(names))
        assert found.inside(data) == any(name in data for name in names)
        assert found.which(data) == {n for n, name in enumerate(names) if name in data}


@pytest.mark.parametrize("names", [(b"k",), (b"x" * 300,), (b"kmap", b"kmap_atomic"), ()])
def test_a_finder_takes_any_names(names: tuple[bytes, ...]) -> None:
    find = text.finder(names)
    assert not find(b"nothing of it" * 100)
    assert all(find(b"." * 999 + name + b".") for name in names)


def test_many_names_are_found_too() -> None:
    names = [f"name_{number:04}_end" for number in range(700)]
    choose = text.chooser(names)
    assert choose(" ".join(names[250:260] + names[600:602])) == names[250:260] + names[600:602]
    assert choose("name_0000_en") == []


def test_each_rule_beside_windows_has_its_scope() -> None:
    assert Scope.of(None) == Scope.of(frozenset(BESIDE_WINDOWS)) == Scope()
    assert Scope.of(frozenset({"leaked-window"})) == Scope(False, False, False)
    assert Scope.of(frozenset({"page-overrun"})) == Scope(False, True, False)
