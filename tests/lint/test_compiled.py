from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from highmem.lint import lint_source
from highmem.lint.paths.interp import COMPILED
from support.lint_corpus import CORPUS

SCRIPT = """
import json, sys
from pathlib import Path
from highmem.lint import lint_source
from highmem.lint.paths.interp import COMPILED
found = {}
for path in map(Path, sys.argv[1:]):
    found[path.name] = lint_source(path.read_bytes(), path.name, deprecated=True).to_dict()
loaded = [name for name in sys.modules if name.startswith("highmem.lint.")]
compiled = [name for name in loaded if not sys.modules[name].__file__.endswith(".py")]
json.dump([COMPILED, compiled, found], sys.stdout)
"""


@pytest.mark.skipif(not COMPILED, reason="not compiled here")
def test_interpreted_it_says_the_same_as_compiled() -> None:
    files = sorted(CORPUS.glob("*.c"))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, files)],
        env={"PYTHONPATH": ":".join(sys.path), "HIGHMEM_INTERPRETED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    was_compiled, compiled, found = json.loads(done.stdout)
    assert not was_compiled
    assert compiled == []
    assert found == {path.name: as_document(path) for path in files}
    assert any(report["findings"] for report in found.values())


def as_document(path: Path) -> object:
    report = lint_source(path.read_bytes(), path.name, deprecated=True)
    return json.loads(json.dumps(report.to_dict()))
