"""Compiles the modules of highmem that are written for it, where a C compiler is at hand.

They are plain Python (Cython's pure mode): where compiling is not possible, or not wanted
(``HIGHMEM_PURE=1``), the same files are installed and run interpreted.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import sysconfig
import tempfile
import tokenize
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILED = (
    "src/highmem/image/formats/_unpack.py",
    "src/highmem/lint/paths/context.py",
    "src/highmem/lint/paths/evaluate.py",
    "src/highmem/lint/paths/facts.py",
    "src/highmem/lint/paths/forget.py",
    "src/highmem/lint/paths/interp.py",
    "src/highmem/lint/paths/state.py",
    "src/highmem/lint/paths/values.py",
    "src/highmem/lint/rules/access.py",
    "src/highmem/lint/rules/atomic.py",
    "src/highmem/lint/rules/calls.py",
    "src/highmem/lint/rules/exits.py",
    "src/highmem/lint/rules/guards.py",
    "src/highmem/lint/rules/windows.py",
    "src/highmem/lint/syntax/_bytes.py",
    "src/highmem/lint/syntax/liveness.py",
    "src/highmem/replay/_engine.py",
    "src/highmem/replay/_evidence.py",
    "src/highmem/replay/_permanent.py",
    "src/highmem/trace/_ring.py",
    "src/highmem/trace/_symbols.py",
    "src/highmem/trace/_text.py",
)


class CompileHook(BuildHookInterface):
    """Builds one extension module beside each file of COMPILED."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put what came out into the wheel; say one line where it cannot be."""
        if self.target_name != "wheel" or os.environ.get("HIGHMEM_PURE") == "1":
            return
        try:
            built = compile_all(Path(self.root), [Path(self.root, name) for name in COMPILED])
        except Exception as error:  # any failing compiler: the interpreted files do the same
            self.app.display_warning(f"highmem: not compiled, runs interpreted: {error}")
            return
        if not built:
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for path in built:
            inside = path.relative_to(Path(self.root, "src"))
            build_data["force_include"][str(path)] = str(inside)


_CONSTANT = re.compile(r"(?m)^([A-Z][A-Z_0-9]+) = cython\.declare\(cython\.\w+, (.+?)\)(?:  #.*)?$")
_SMALL = 1 << 31  # a larger literal would be a Python number


def folded(source: str) -> str:
    """*source* with its declared constants written out wherever they are used.

    To the C compiler they would be variables, which are read again at each use.
    """
    known: dict[str, int] = {}
    for name, value in _CONSTANT.findall(source):
        try:
            number = eval(value, {"__builtins__": {}}, known)  # our own text
        except (NameError, TypeError):
            continue  # made from what only the running module knows
        if isinstance(number, int) and abs(number) < _SMALL:
            known[name] = number
    lines = source.splitlines(keepends=True)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for before, token, after in reversed(list(zip(tokens, tokens[1:], tokens[2:], strict=False))):
        alone = before.string != "." and after.string != "="
        if token.type == tokenize.NAME and token.string in known and alone:
            row, (start, end) = token.start[0] - 1, (token.start[1], token.end[1])
            lines[row] = f"{lines[row][:start]}{known[token.string]}{lines[row][end:]}"
    return "".join(lines)


def _flags(source: Path) -> list[str]:
    """Loops over numbers (``_name.py``) gain by optimizing; code that handles Python's own objects
    only takes longer to compile."""
    if os.name != "posix":
        return []
    return ["-O3" if source.name.startswith("_") else "-O1", "-g0"]


def compile_all(root: Path, sources: list[Path]) -> list[Path]:
    """Compile *sources* in place; the extension modules."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    sources = [source for source in sources if source.exists()]
    if not sources:
        return []
    work, before = Path(tempfile.mkdtemp(prefix="highmem-build-")), Path.cwd()
    try:
        for source in sources:
            copy = work / source.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(folded(source.read_text("utf-8")), "utf-8")
        extensions = [
            Extension(
                ".".join(source.relative_to(root / "src").with_suffix("").parts),
                [str(source.relative_to(root))],
                extra_compile_args=_flags(source),
            )
            for source in sources
        ]
        os.chdir(work)
        modules = cythonize(extensions, quiet=True, language_level=3, force=True)
        command = build_ext(Distribution({"ext_modules": modules, "package_dir": {"": "src"}}))
        command.build_temp, command.build_lib = str(work / "temp"), str(work / "lib")
        command.parallel = os.cpu_count() or 1
        command.ensure_finalized()
        command.run()
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        built = []
        for source, extension in zip(sources, extensions, strict=True):
            made = work.joinpath("lib", *extension.name.split(".")).with_suffix(suffix)
            target = source.with_suffix(suffix)
            # A new file under the old name: one that is in use must not change under its users.
            shutil.copy(made, f"{target}.new")
            os.replace(f"{target}.new", target)
            built.append(target)
        return built
    finally:
        os.chdir(before)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    # Compile in place for developers: python hatch_build.py
    here = Path(__file__).resolve().parent
    for made in compile_all(here, [here / name for name in COMPILED]):
        sys.stdout.write(f"compiled {made.relative_to(here)}\n")
