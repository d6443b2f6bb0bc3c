from __future__ import annotations

import pytest

from highmem.lint.syntax.conditionals import choices, find_groups
from highmem.lint.syntax.source import MAX_BYTES, MAX_LINE, Rejected, Source, read_source, variants


def read(text: str) -> Source:
    return read_source(text.encode(), "drivers/x.c")


def names(text: str) -> list[str]:
    return [function.name for function in read(text).functions]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("int f(void)\n{\n}\n", "f"),
        ("static inline struct page *g(struct inode *dir,\n\tunsigned long n)\n{\n}\n", "g"),
        ("static int FNAME(walk_addr)(struct guest_walker *w)\n{\n}\n", "walk_addr"),
        ("SYSCALL_DEFINE2(pivot, int, a, int, b)\n{\n}\n", "pivot"),
        ("static __printf(1, 2) void say(const char *fmt, ...)\n{\n}\n", "say"),
        ("static void unlock(void) __releases(lock)\n{\n}\n", "unlock"),
        ("__attribute__((noinline)) void slow(int (*cb)(int))\n{\n}\n", "slow"),
        ('extern "C" {\nint inside(void) { return 0; }\n}\n', "inside"),
    ],
)
def test_a_function_is_found_under_its_name(text: str, name: str) -> None:
    assert names(text) == [name]


@pytest.mark.parametrize(
    "text",
    [
        "struct s { int a; };\n",
        "static const struct ops o = { .read = f, };\n",
        "enum { A, B };\nint x = 3;\n",
        "static int table[] = { F(1), F(2) };\n",
        "#define M(x) do { x; } while (0)\n",
        "/* int f(void) { } */\n",
        'char *s = "int f(void) { }";\n',
        "#if 0\nint f(void)\n{\n}\n#endif\n",
    ],
)
def test_what_is_no_function_is_none(text: str) -> None:
    assert names(text) == []


def test_every_text_keeps_its_length_and_its_lines() -> None:
    text = "#include <x.h>\n/* a\n * b */ int f(char *s) // c\n{\n\treturn g(\"{\", '}');\n}\n"
    source = read(text)
    assert len(source.code) == len(text)
    assert source.code.count("\n") == text.count("\n")
    (function,) = source.functions
    assert text[function.body : function.end].startswith("{\n\treturn")
    assert source.position(function.body) == (4, 1)
    assert source.snippet(function.start, function.body) == "int f(char *s) // c"


def test_branches_that_share_a_brace_are_read_one_by_one() -> None:
    text = (
        "#ifdef A\nint f(int x)\n{\n\tif (x) {\n#else\nint f(int x, int y)\n{\n\tif (y) {\n#endif\n"
        "\t\tg();\n\t}\n}\nint h(void)\n{\n}\n"
    )
    source = read(text)
    assert sorted(set(names(text))) == ["f", "h"]
    texts = {way.text for one in source.functions for way in variants(source, one)}
    assert any("if (x)" in one and "if (y)" not in one for one in texts)
    assert any("if (y)" in one and "if (x)" not in one for one in texts)


def test_each_branch_inside_a_function_is_chosen_once() -> None:
    text = "int f(void)\n{\n#ifdef A\n\ta();\n#elif defined(B)\n\tb();\n#else\n\tc();\n#endif\n}\n"
    source = read(text)
    ways = [way.text.split() for way in variants(source, source.functions[0])]
    assert sorted(way[1] for way in ways) == ["a();", "b();", "c();"]


def test_conditions_of_the_same_text_are_chosen_alike() -> None:
    text = "int f(void)\n{\n#ifdef A\n\ta();\n#endif\n\tx();\n#ifndef A\n\tb();\n#endif\n}\n"
    source = read(text)
    ways = {"".join(way.text.split()) for way in variants(source, source.functions[0])}
    assert ways == {"{a();x();}", "{x();b();}"}


def test_an_unended_group_is_no_group() -> None:
    assert find_groups([(0, 3, "if", "A"), (5, 9, "else", "")], 20) == []


def test_no_more_ways_than_the_limit() -> None:
    directives = []
    for number in range(40):
        directives += [(number * 10, number * 10 + 2, "ifdef", f"A{number}")]
        directives += [(number * 10 + 5, number * 10 + 7, "endif", "")]
    assert len(list(choices(find_groups(directives, 500), 6))) == 6


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"int x;\0", "NUL byte at offset 6"),
        (b"int x;" + b" " * MAX_LINE, "longer than"),
        (b"\n" * (MAX_BYTES + 1), "bytes"),
        (b"int f(void)\n" + b"{\n" * 300 + b"}\n" * 300, "nested deeper"),
        (b"int \xc3\x28;", "not ASCII"),
    ],
)
def test_what_cannot_be_source_is_rejected_with_its_reason(data: bytes, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        read_source(data, "x.c")


def test_latin_1_in_a_comment_is_only_noted() -> None:
    source = read_source(b"/* J\xf6rg */ int f(void)\n{\n}\n", "x.c")
    assert [function.name for function in source.functions] == ["f"]
    assert source.notes
