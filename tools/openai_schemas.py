"""The part of OpenAI's own API description that tests/server validates against.

`python tools/openai_schemas.py openapi.json` (github.com/openai/openai-openapi, MIT) writes
tests/data/openai_schemas.json: the schemas of what a server answers, without prose, as JSON Schema 2020-12, and the
names of all parameters of the requests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "tests" / "data" / "openai_schemas.json"
REQUESTS = ("CreateChatCompletionRequest", "CreateCompletionRequest", "CreateResponse")
ANSWERS = (
    "CreateChatCompletionResponse",
    "CreateChatCompletionStreamResponse",
    "CreateCompletionResponse",
    "ErrorResponse",
    "ListModelsResponse",
    "Model",
    "Response",
    "ResponseItemList",
    "ResponseStreamEvent",
)
PROSE = ("description", "example", "examples", "title", "deprecated", "discriminator", "default")
PREFIX = "#/components/schemas/"


def plain(node: Any, named: bool = False) -> Any:
    """Without prose, and with OpenAPI 3.0's `nullable` as JSON Schema says it. `named`: the keys are names."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {
        key: plain(value, named=key == "properties")
        for key, value in node.items()
        if named or not (key in PROSE or key.startswith("x-") or key == "nullable")
    }
    return {"anyOf": [kept, {"type": "null"}]} if node.get("nullable") is True and not named else kept


def referred(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(referred, node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"].removeprefix(PREFIX)} if isinstance(node.get("$ref"), str) else set()
    return own.union(*map(referred, node.values()))


def properties(schemas: dict[str, Any], name: str) -> set[str]:
    """Of a schema and of all that it is made of."""
    found, parts = set(), [schemas[name]]
    while parts:
        part = parts.pop()
        if "$ref" in part:
            part = schemas[part["$ref"].removeprefix(PREFIX)]
        found |= set(part.get("properties", ()))
        parts += part.get("allOf", ())
    return found


def main() -> int:
    schemas = json.loads(Path(sys.argv[1]).read_text())["components"]["schemas"]
    kept: dict[str, Any] = {}
    wanted = set(ANSWERS)
    while wanted:
        name = wanted.pop()
        kept[name] = plain(schemas[name])
        wanted |= referred(kept[name]) - set(kept)
    parameters = {name: sorted(properties(schemas, name)) for name in REQUESTS}
    text = json.dumps({"schemas": dict(sorted(kept.items())), "parameters": parameters}, separators=(",", ":"))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
