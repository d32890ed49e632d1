"""Replies as models write them, spelled out here and not taken from the table of formats, and how they are parsed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from hexad.text.formats import FORMATS
from hexad.text.reply import CallArguments, CallStart, Event, Reasoning, ReplyParser, Text, Tool

Calls = list[tuple[str, dict[str, Any]]]

WEATHER = Tool(
    name="get_weather",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "exact": {"type": "boolean"},
            "factor": {"type": ["number", "null"]},
            "options": {"type": "object"},
            "places": {"type": "array"},
        },
    },
)
TOOLS = [WEATHER, Tool(name="noop")]


@dataclass
class Said:
    """A reply put together: what a client sees in the end."""

    content: str = ""
    reasoning: str = ""
    calls: list[list[str]] = field(default_factory=list)
    """Name and arguments."""


def put_together(events: Iterable[Event]) -> Said:
    said = Said()
    for event in events:
        if isinstance(event, Text):
            said.content += event.text
        elif isinstance(event, Reasoning):
            said.reasoning += event.text
        elif isinstance(event, CallStart):
            assert event.index == len(said.calls)
            said.calls.append([event.name, ""])
        else:
            assert isinstance(event, CallArguments) and event.index == len(said.calls) - 1 and event.text
            said.calls[-1][1] += event.text
    return said


def parse(
    format: str, pieces: Iterable[str], tools: list[Tool] = TOOLS, *, thinking: bool = True, prompt_tail: str = ""
) -> Said:
    parser = ReplyParser(FORMATS[format], tools=tools, thinking=thinking, prompt_tail=prompt_tail)
    events = [event for piece in pieces for event in parser.push(piece)]
    return put_together([*events, *parser.finish()])


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _hermes(reasoning: str, content: str, calls: Calls) -> str:
    text = _think(reasoning) + content
    for name, arguments in calls:
        text += f'\n<tool_call>\n{{"name": "{name}", "arguments": {dumps(arguments)}}}\n</tool_call>'
    return text


def _think(reasoning: str) -> str:
    return f"<think>\n{reasoning}\n</think>\n\n" if reasoning else ""


def _llama3(reasoning: str, content: str, calls: Calls) -> str:
    objects = [f'{{"name": "{name}", "parameters": {dumps(arguments)}}}' for name, arguments in calls]
    return _think(reasoning) + (content + "\n<|python_tag|>" if content and calls else content) + "; ".join(objects)


def _mistral(reasoning: str, content: str, calls: Calls) -> str:
    text = (f"[THINK]{reasoning}[/THINK]" if reasoning else "") + content
    return text + "".join(f"[TOOL_CALLS]{name}[ARGS]{dumps(arguments)}" for name, arguments in calls)


def _mistral_with_ids(reasoning: str, content: str, calls: Calls) -> str:
    return _mistral(reasoning, content, [(f"{name}[CALL_ID]aZ09aZ09a", arguments) for name, arguments in calls])


def _mistral_list(reasoning: str, content: str, calls: Calls) -> str:
    objects = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return _think(reasoning) + content + (f"[TOOL_CALLS] {dumps(objects)}" if calls else "")


def _mistral_nemo(reasoning: str, content: str, calls: Calls) -> str:
    text = _mistral_list(reasoning, content, calls).replace("[TOOL_CALLS] [", "[TOOL_CALLS][", 1)
    return text if len(calls) != 1 else text[:-2] + ', "id": "aZ09aZ09a"}]'


def _deepseek(reasoning: str, content: str, calls: Calls) -> str:
    each = [
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{dumps(arguments)}\n```<｜tool▁call▁end｜>"
        for name, arguments in calls
    ]
    section = "<｜tool▁calls▁begin｜>" + "\n".join(each) + "<｜tool▁calls▁end｜>"
    return _think(reasoning) + content + (section if calls else "")


def _deepseek_v31(reasoning: str, content: str, calls: Calls) -> str:
    each = [
        f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{dumps(arguments)}<｜tool▁call▁end｜>" for name, arguments in calls
    ]
    section = "<｜tool▁calls▁begin｜>" + "".join(each) + "<｜tool▁calls▁end｜>"
    return _think(reasoning) + content + (section if calls else "")


def _harmony(reasoning: str, content: str, calls: Calls) -> str:
    messages = [f"<|channel|>analysis<|message|>{reasoning}<|end|>"] if reasoning else []
    if content:
        channel = "commentary" if calls else "final"
        messages.append(f"<|channel|>{channel}<|message|>{content}<|end|>")
    for name, arguments in calls:
        header = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
        messages.append(f"{header}{dumps(arguments)}<|call|>")
    return "<|start|>assistant".join(messages)


def _harmony_recipient_first(reasoning: str, content: str, calls: Calls) -> str:
    text = _harmony(reasoning, content, calls)
    for name, _ in calls:
        text = text.replace(
            f"<|channel|>commentary to=functions.{name} ", f" to=functions.{name}<|channel|>commentary "
        )
    return text


def _pythonic(reasoning: str, content: str, calls: Calls) -> str:
    def call(name: str, arguments: dict[str, Any]) -> str:
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"

    return _think(reasoning) + (
        content if content else f"[{', '.join(call(*each) for each in calls)}]" if calls else ""
    )


def _qwen3_coder(reasoning: str, content: str, calls: Calls) -> str:
    text = _think(reasoning) + content
    for name, arguments in calls:
        text += f"\n<tool_call>\n<function={name}>\n"
        for key, value in arguments.items():
            text += f"<parameter={key}>\n{value if isinstance(value, str) else dumps(value)}\n</parameter>\n"
        text += "</function>\n</tool_call>"
    return text


def _lfm2(reasoning: str, content: str, calls: Calls) -> str:
    section = f"<|tool_call_start|>{_pythonic('', '', calls)}<|tool_call_end|>"
    return _think(reasoning) + (section if calls else "") + content


def _granite(reasoning: str, content: str, calls: Calls) -> str:
    return _mistral_list(reasoning, content, calls).replace("[TOOL_CALLS] [{", "<|tool_call|>[{")


def _nemotron(reasoning: str, content: str, calls: Calls) -> str:
    return _granite(reasoning, content, calls).replace("<|tool_call|>", "<TOOLCALL>") + ("</TOOLCALL>" if calls else "")


def _kimi(reasoning: str, content: str, calls: Calls) -> str:
    text = (f"<think>{reasoning}</think>" if reasoning else "") + content
    each = [
        f"<|tool_call_begin|>functions.{name}:{number}<|tool_call_argument_begin|>{dumps(arguments)}<|tool_call_end|>"
        for number, (name, arguments) in enumerate(calls, 9)
    ]
    return text + (f"<|tool_calls_section_begin|>{''.join(each)}<|tool_calls_section_end|>" if calls else "")


def _plainly(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)


def _seed_oss(reasoning: str, content: str, calls: Calls) -> str:
    text = (f"<seed:think>{reasoning}</seed:think>" if reasoning else "") + content
    for name, arguments in calls:
        items = "".join(f"<parameter={key}>{_plainly(value)}</parameter>\n" for key, value in arguments.items())
        text += f"\n<seed:tool_call>\n<function={name}>\n{items}</function>\n</seed:tool_call>"
    return text


def _glm(reasoning: str, content: str, calls: Calls, line: str = "\n") -> str:
    text = (f"{line}<think>{reasoning}</think>{line}" if reasoning else "") + content
    for name, arguments in calls:
        items = [
            f"<arg_key>{key}</arg_key>{line}<arg_value>{_plainly(value)}</arg_value>{line}"
            for key, value in arguments.items()
        ]
        text += f"{line}<tool_call>{name}{line}{''.join(items)}</tool_call>"
    return text


def _glm_in_one_line(reasoning: str, content: str, calls: Calls) -> str:
    return _glm(reasoning, content, calls, line="")


def _minimax(reasoning: str, content: str, calls: Calls) -> str:
    text = _think(reasoning) + content
    for number, (name, arguments) in enumerate(calls):
        items = [f'<parameter name="{key}">{_plainly(value)}</parameter>\n' for key, value in arguments.items()]
        text += "" if number else "\n<minimax:tool_call>\n"
        text += f'<invoke name="{name}">\n{"".join(items)}</invoke>\n'
    return text + ("</minimax:tool_call>" if calls else "")


WRITERS: dict[str, tuple[str, Callable[[str, str, Calls], str]]] = {
    "hermes": ("hermes", _hermes),
    "llama3": ("llama3", _llama3),
    "mistral": ("mistral", _mistral),
    "mistral with ids": ("mistral", _mistral_with_ids),
    "mistral-list": ("mistral-list", _mistral_list),
    "mistral-nemo": ("mistral-nemo", _mistral_nemo),
    "deepseek": ("deepseek", _deepseek),
    "deepseek-v3.1": ("deepseek-v3.1", _deepseek_v31),
    "harmony": ("harmony", _harmony),
    "harmony, recipient first": ("harmony", _harmony_recipient_first),
    "pythonic": ("pythonic", _pythonic),
    "lfm2": ("lfm2", _lfm2),
    "granite": ("granite", _granite),
    "nemotron": ("nemotron", _nemotron),
    "kimi": ("kimi", _kimi),
    "qwen3-coder": ("qwen3-coder", _qwen3_coder),
    "seed-oss": ("seed-oss", _seed_oss),
    "glm": ("glm", _glm),
    "glm, in one line": ("glm", _glm_in_one_line),
    "minimax": ("minimax", _minimax),
}
"""By a name: the format, and what writes reasoning, content and calls in it."""
PYTHONIC_ONE_KIND = "pythonic"
"""Its replies hold either content or calls."""
