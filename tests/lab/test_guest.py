from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from highmem.lab import guest
from support import lab_files

_ODD = ["plain", "two words", "it's", '"quoted"', "$HOME", "a=b;reboot", "*", ""]


def tool(folder: Path, name: str, status: int = 0) -> None:
    text = f'#!/bin/sh\nfor word in {name} "$@"; do printf "%s\\n" "$word"; done\nexit {status}\n'
    lab_files.write(folder / name, text.encode(), 0o755)


def run(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    # What is at the root in the guest is in a folder here.
    (tmp_path / "lab" / "out").mkdir(parents=True, exist_ok=True)
    path = lab_files.write(tmp_path / "job", script.replace("/lab/", f"{tmp_path}/lab/").encode())
    return subprocess.run(
        ["sh", path],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )


@pytest.mark.parametrize("name", ["lab/init", *guest.FILES])
def test_the_scripts_of_the_guest_are_sh(tmp_path: Path, name: str) -> None:
    text = {**guest.FILES, "lab/init": guest.INIT}[name]
    path = lab_files.write(tmp_path / "script", text.encode())
    told = subprocess.run(["sh", "-n", path], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")


def test_a_command_keeps_its_words_and_its_status(tmp_path: Path) -> None:
    tool(tmp_path, "program", 42)
    done = run(tmp_path, guest.command_job(["program", *_ODD]))
    assert done.stdout.split("\n")[1:-1] == _ODD
    assert done.returncode == 42


def test_a_module_is_loaded_with_its_words_and_taken_away(tmp_path: Path) -> None:
    for name in ("insmod", "rmmod", "sleep"):
        tool(tmp_path, name)
    done = run(tmp_path, guest.module_job("my-driver.ko", _ODD, then=False))
    lines = done.stdout.split("\n")
    assert lines[: len(_ODD) + 2] == ["insmod", f"{tmp_path}/lab/my-driver.ko", *_ODD]
    assert lines[len(_ODD) + 2 :] == ["sleep", "1", "rmmod", "my_driver", ""]
    assert done.returncode == 0


def test_a_module_that_cannot_be_loaded_is_not_taken_away(tmp_path: Path) -> None:
    tool(tmp_path, "insmod", 1)
    tool(tmp_path, "rmmod")
    done = run(tmp_path, guest.module_job("m.ko", [], then=True))
    assert done.returncode == 1 and "rmmod" not in done.stdout


def test_the_script_runs_between_loading_and_taking_away(tmp_path: Path) -> None:
    tool(tmp_path, "insmod")
    tool(tmp_path, "rmmod")
    lab_files.write(tmp_path / "lab" / "workload", b"echo script; exit 9\n")
    done = run(tmp_path, guest.module_job("m.ko", [], then=True))
    words = [line for line in done.stdout.split("\n") if line in ("insmod", "script", "rmmod")]
    assert words == ["insmod", "script", "rmmod"]
    assert done.returncode == 9
