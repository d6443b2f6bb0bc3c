from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECK = Path(__file__).resolve().parents[2] / "scripts" / "check_sizes.py"


def check(folder: Path, source: str) -> tuple[int, str]:
    (folder / "module.py").write_text(source, encoding="utf-8")
    command = [sys.executable, str(CHECK), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    return result.returncode, result.stdout


def function(statements: int, *, before: str = "") -> str:
    return "def f():\n" + before + "    x = 1\n" * statements


def test_function_of_sixty_lines_passes_and_of_sixty_one_fails(tmp_path: Path) -> None:
    assert check(tmp_path, function(60))[0] == 0
    status, output = check(tmp_path, function(61))
    assert status == 1
    assert f"{tmp_path}/module.py:1: error: f has 61 lines" in output


def test_docstring_blank_lines_and_comments_of_a_function_are_free(tmp_path: Path) -> None:
    free = '    """One.\n\n    Two.\n    """\n\n    # Why.\n'
    assert check(tmp_path, function(60, before=free))[0] == 0
    assert check(tmp_path, function(61, before=free))[0] == 1


def test_file_over_the_soft_limit_is_a_warning_and_over_the_hard_one_an_error(
    tmp_path: Path,
) -> None:
    assert "file has" not in check(tmp_path, "x = 1\n" * 400)[1]
    status, output = check(tmp_path, "x = 1\n" * 401)
    assert (status, "warning: file has 401 lines" in output) == (0, True)
    assert check(tmp_path, "x = 1\n" * 800)[0] == 0
    status, output = check(tmp_path, "x = 1\n" * 801)
    assert (status, "error: file has 801 lines" in output) == (1, True)


def test_tables_are_free_in_files_and_functions(tmp_path: Path) -> None:
    rows = "    1,\n" * 900
    assert check(tmp_path, f"TABLE = (\n{rows})\n")[0] == 1
    assert check(tmp_path, f"TABLE = (  # table\n{rows})\n")[0] == 0
    assert check(tmp_path, f"def f():\n    t = (  # table\n{rows}    )\n")[0] == 0


def test_most_functions_over_thirty_lines_is_said(tmp_path: Path) -> None:
    assert "at most 30 lines (in budget)" in check(tmp_path, function(30))[1]
    status, output = check(tmp_path, function(31) * 5)
    assert (status, "at most 31 lines (over 30" in output) == (0, True)
