from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    pytest.importorskip("hatchling", reason="what builds the package is not installed")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_constants_are_written_out_where_they_are_used(build: ModuleType) -> None:
    source = (
        "AT = cython.declare(cython.int, 3)  # table\n"
        "BY = cython.declare(cython.int, 1 << AT)\n"
        "LARGE = cython.declare(cython.ulonglong, 0xFFFFFFFF)\n"
        "MADE = cython.declare(cython.int, int(Kind.MAP))\n"
        "x = row[AT + BY] + LARGE + MADE  # AT stays here\n"
        "y = f(AT=1, b=self.AT, c='AT')\n"
    )
    lines = build.folded(source).splitlines()
    assert lines[4] == "x = row[3 + 8] + LARGE + MADE  # AT stays here"
    assert lines[5] == "y = f(AT=1, b=self.AT, c='AT')"


def test_folding_keeps_the_lines_of_every_compiled_module(build: ModuleType) -> None:
    for name in build.COMPILED:
        source = (ROOT / name).read_text("utf-8")
        folded = build.folded(source)
        assert folded.count("\n") == source.count("\n")
        compile(folded, name, "exec")
