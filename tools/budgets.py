"""The size budgets that keep the house readable. Run by `make lint`; exits 1 with what is over."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from hexad.config import Config

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_LINES = {"hexad/server": 6_350, "hexad/bench": 4_330, "hexad": 13_220}
"""Of Python: the front doors, what measures, and all the rest together."""
MAX_SETTINGS = 30
MAX_HELP_SECONDS = 0.3

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    problems = [*over_size(), *forbidden_words(), *slow_help()]
    if len(fields(Config)) > MAX_SETTINGS:
        problems.append(f"Config has {len(fields(Config))} settings; at most {MAX_SETTINGS}")
    print("\n".join(problems) if problems else "budgets: all within")
    return 1 if problems else 0


def over_size() -> Iterator[str]:
    total = dict.fromkeys(MAX_LINES, 0)
    for folder in ("hexad", "tests", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            source = path.read_text()
            lines = source.count("\n")
            name = path.relative_to(ROOT)
            if folder == "hexad":
                total[next(part for part in MAX_LINES if name.is_relative_to(part))] += lines
            if lines > MAX_FILE_LINES:
                yield f"{name}: {lines} lines; at most {MAX_FILE_LINES}"
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    if length > MAX_FUNCTION_LINES:
                        yield f"{name}:{node.lineno}: {node.name} has {length} lines; at most {MAX_FUNCTION_LINES}"
    for part, lines in total.items():
        if lines > MAX_LINES[part]:
            yield f"{part} has {lines} lines; at most {MAX_LINES[part]}"


def forbidden_words() -> Iterator[str]:
    """No `global`, no pickle or eval, no environment variable of our own but HEXAD_ISA."""
    for path in sorted((ROOT / "hexad").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            found = None
            if isinstance(node, ast.Global):
                found = "global"
            elif isinstance(node, ast.Import) and any(
                n.name in ("pickle", "cloudpickle", "marshal") for n in node.names
            ):
                found = "pickle"
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                found = node.func.id
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("HEXAD_"):
                found = None if node.value == "HEXAD_ISA" else node.value
            if found:
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {found} is not allowed"  # type: ignore[attr-defined]


def slow_help() -> Iterator[str]:
    """The best of three, of a processor's time, so that a busy machine does not fail the build."""

    def spent() -> float:
        return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

    best = MAX_HELP_SECONDS + 1
    for _ in range(3):
        before = spent()
        subprocess.run([sys.executable, "-m", "hexad.cli.main", "--help"], check=True, capture_output=True)
        best = min(best, spent() - before)
    if best > MAX_HELP_SECONDS:
        yield f"hexad --help takes {best:.2f} s; at most {MAX_HELP_SECONDS}"


if __name__ == "__main__":
    sys.exit(main())
