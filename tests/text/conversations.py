"""Chat templates in the manner of the families they are named after, and conversations to render."""

from pathlib import Path
from typing import Any

TEMPLATES = {path.stem: path.read_text() for path in sorted(Path(__file__).parent.glob("templates/*.jinja"))}
"""`kitchen_sink` uses what jinja2 offers beyond what the others need."""

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a <city>, “now” & later",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "noop", "parameters": {}, "return": None}},
]
_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln"}}}

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one turn": [{"role": "user", "content": "Hi!"}],
    "system": [{"role": "system", "content": " Be brief. \n"}, {"role": "user", "content": "  日本語 \n😀 "}],
    "turns": [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\ntwo"},
        {"role": "user", "content": "3"},
        {"role": "assistant", "content": " four ", "reasoning_content": "because\n"},
    ],
    "older reasoning field": [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "two", "reasoning": "old name"},
    ],
    "tool use": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "content": '{"temperature": 21.5}', "tool_call_id": "call_1"},
        {"role": "assistant", "content": "21.5 degrees"},
        {"role": "user", "content": "Thanks {{ 7*7 }} {% endfor %} <|im_end|>"},
    ],
    "wrong order": [{"role": "assistant", "content": "me first"}, {"role": "user", "content": "no"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "a part"}]}],
    "empty": [],
}
