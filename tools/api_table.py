"""docs/api.md from the tables that the tests run: `python tools/api_table.py` writes it, `--check` compares."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.server.api import Endpoint, endpoints  # noqa: E402

PAGE = ROOT / "docs" / "api.md"
HEAD = """# Every endpoint and every parameter
Written by `tools/api_table.py` from the tables in `tests/server/api/`, which the tests send to a running server: every
parameter below was accepted or refused there.

**honoured**: does what its dialect says. **refused**: a 4xx that names it. **no effect**: accepted, because by its
definition it changes no answer. A parameter that is not in the table is a 400 that names it. Values out of range are
refused everywhere. `/admin`, `/health`, `/metrics` and the like are Hexad's own: [serving.md](serving.md).
"""


def page() -> str:
    parts = [HEAD]
    for dialect, found in groupby(endpoints(), key=lambda endpoint: endpoint.dialect):
        parts.append(f"## {dialect}\n")
        parts.extend(_section(endpoint) for endpoint in found)
    return "\n".join(parts)


def _section(endpoint: Endpoint) -> str:
    lines = [f"### `{endpoint.method} {endpoint.path}`", endpoint.what]
    if endpoint.parameters:
        lines += ["", "| parameter | | |", "| --- | --- | --- |"]
        lines += [f"| `{row.name}` | {row.fate} | {row.note} |" for row in endpoint.parameters]
    return "\n".join(lines) + "\n"


def main() -> int:
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        print("docs/api.md is stale; run python tools/api_table.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
