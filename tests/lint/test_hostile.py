from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highmem.errors import InputError
from highmem.lint import LintOptions, lint_paths, lint_source
from highmem.lint.api import load_api

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.c"))
HEAD = b"void f(struct page *page)\n{\n\tvoid *p = kmap_local_page(page);\n"
TAIL = b"\tkunmap_local(p);\n}\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(HEAD + b"{" * 100_000 + b"}" * 100_000 + TAIL, id="100 000 braces"),
        pytest.param(HEAD + b"{\n" * 100_000 + b"}\n" * 100_000 + TAIL, id="in lines"),
        pytest.param(b"int x;" + b" " * (50 << 20), id="a line of 50 MiB"),
        pytest.param(HEAD + b"\0" + TAIL, id="a NUL byte"),
        pytest.param(HEAD + b"\xc3\x28;" + TAIL, id="broken UTF-8 in code"),
    ],
)
def test_what_is_no_source_is_rejected_with_a_reason(data: bytes) -> None:
    report = lint_source(data, "x.c")
    assert report.rejected
    assert not report.functions
    assert not report.findings


@pytest.mark.parametrize(
    "body",
    [
        b"x = " + b"(" * 5000 + b"1" + b")" * 5000 + b";\n",
        b"if (" + b"a && " * 3000 + b"1) return;\n",
        b"if (a) x();\n" + b"else if (b) y();\n" * 3000,
        b"x = " + b"*" * 20_000 + b"p;\n",
        b"x = a" + b"->b" * 10_000 + b";\n",
        b"".join(b"if (a%d) b%d = 1;\nif (b%d) goto out;\n" % (i, i, i) for i in range(2000))
        + b"out:\n",
        b"".join(b"l%d: if (a%d) goto l%d;\n" % (i, i, i * 7 % 300) for i in range(300)),
        b"".join(b"for (i%d = 0; i%d < n; i%d++) {\n" % (i, i, i) for i in range(150)) + b"}" * 150,
        b"switch (x) {\n" + b"".join(b"case %d: y(); break;\n" % i for i in range(5000)) + b"}\n",
        b"q = kmap_local_page(page); if (a) kunmap_local(q);\n" * 1500,
        b"".join(b"#ifdef A%d\nx();\n#else\ny();\n#endif\n" % i for i in range(1000)),
        b'asm("x" : "=r"(a) : "r"(p));' * 500 + b"\n",
        b"'" * 10_000 + b"\n" + b'"' * 9999 + b"\n",
        b"/* never ends",
        b"\\\n" * 10_000,
        b"foo(x)\nbar(y)\n" * 15_000,
        b"x)\ny" * 15_000,
        b"FOO(if \n" * 20_000,
        b"FOO(if (x) y();)\n" * 10_000,
        b'g("x" A(1)\n' * 20_000,
        b"x();\n" * 100_000,
    ],
    ids=range(21),
)
def test_a_huge_function_ends_soon_and_is_counted(body: bytes) -> None:
    begun = time.process_time()
    report = lint_source(HEAD + body + TAIL, "x.c")
    assert time.process_time() - begun < 20
    assert report.rejected is None
    assert [one.name for one in report.functions] == ["f"]
    (one,) = report.functions
    assert one.status == ("partial" if one.reasons else "full")


def pieces(seed: int) -> bytes:
    rng = random.Random(seed)
    text = bytearray(CORPUS[rng.randrange(len(CORPUS))].read_bytes()[:6000])
    for _ in range(rng.randint(1, 40)):
        at = rng.randrange(len(text))
        kind = rng.random()
        if kind < 0.4:
            del text[at : at + rng.randint(1, 30)]
        elif kind < 0.7:
            text[at:at] = rng.choice([b"(", b")", b"{", b"}", b"#if X\n", b"/*", b'"', b";", b"->"])
        else:
            to = rng.randrange(len(text))
            text[at:at] = text[to : to + rng.randint(1, 60)]
    return bytes(text)


@settings(max_examples=60)
@given(st.integers(0, 1 << 30))
def test_garbled_source_is_read_or_rejected_but_never_raises(seed: int) -> None:
    report = lint_source(pieces(seed), "x.c")
    assert report.path == "x.c"
    for one in report.findings:
        assert 1 <= one.line <= one.end_line
        assert one.what and one.kernel_does and one.fix


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_any_bytes_after_a_function_leave_it_found(junk: bytes) -> None:
    report = lint_source(HEAD + TAIL + junk, "x.c")
    assert report.rejected or "f" in {one.name for one in report.functions}


def test_a_rejected_file_is_counted_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "good.c").write_bytes(HEAD + TAIL)
    (tmp_path / "bad.c").write_bytes(HEAD + b"\0" + TAIL)
    (tmp_path / "plain.c").write_bytes(b"int x;\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    report = lint_paths([tmp_path])
    assert (report.seen, report.skipped, report.analysed, report.rejected) == (3, 1, 1, 1)
    assert report.counts()["functions"] == 1


def test_a_path_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.c: cannot be read"):
        lint_paths([tmp_path / "nothing.c"])


@pytest.mark.parametrize(
    "text",
    ["not toml [", "[open]\nf = 3\n", '[open]\nf = { famili = "x" }\n', '[family.x]\nby = "y"\n'],
)
def test_a_wrong_table_names_its_file(tmp_path: Path, text: str) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(text)
    with pytest.raises(InputError, match=r"mine\.toml"):
        load_api([table])
    with pytest.raises(InputError, match=r"mine\.toml"):
        lint_paths([tmp_path], LintOptions(api=(str(table),)))
