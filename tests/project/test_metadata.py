from __future__ import annotations

import re
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest

import highmem

ROOT = Path(__file__).resolve().parents[2]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads(text_of("pyproject.toml"))


def test_version_stands_in_the_package_alone(pyproject: dict[str, Any]) -> None:
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["hatch"]["version"]["path"] == "src/highmem/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", highmem.__version__)


def test_installed_version_is_that_of_the_source() -> None:
    try:
        installed = metadata.version("highmem")
    except metadata.PackageNotFoundError:
        pytest.skip("highmem is not installed, only on the path")
    assert installed == highmem.__version__


def test_changelog_and_citation_name_the_version() -> None:
    newest = re.search(r"^## \[(.+?)\]", text_of("CHANGELOG.md"), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == highmem.__version__
    assert f"\nversion: {highmem.__version__}\n" in text_of("CITATION.cff")


def test_lowest_python_is_the_same_everywhere(pyproject: dict[str, Any]) -> None:
    assert pyproject["project"]["requires-python"] == ">=3.11"
    assert pyproject["tool"]["ruff"]["target-version"] == "py311"
    assert "sys.version_info < (3, 11)" in text_of("scripts/setup.sh")
    assert sys.version_info >= (3, 11)


def test_licence_is_said_once_and_stands_in_full(pyproject: dict[str, Any]) -> None:
    assert pyproject["project"]["license"] == "MIT"
    assert "\nlicense: MIT\n" in text_of("CITATION.cff")
    assert "Copyright (c) 2026 the highmem authors" in text_of("LICENSE")


def test_the_gpl_engine_is_no_requirement_of_the_package(pyproject: dict[str, Any]) -> None:
    project, groups = pyproject["project"], pyproject["dependency-groups"]
    with_engine = [name for name, items in groups.items() if "unicorn" in str(items)]
    assert with_engine == ["oracle"]
    assert "unicorn" not in str(project["dependencies"])
    assert "unicorn" not in str(project.get("optional-dependencies", {}))


def test_the_package_brings_its_data() -> None:
    files = resources.files("highmem")
    assert (files / "py.typed").is_file()
    profiles = [item.name for item in (files / "kernel" / "profiles").iterdir()]
    assert any(name.endswith(".toml") for name in profiles)
