"""How models write reasoning and tool calls: a table, one row a format.

A row is read by `ReplyParser` and written by `hexad.text.reply_grammar`, so that what is forced is what is understood.
Sources: the models' own chat templates and, where a template leaves a question open, the parsers of vLLM
(`tool_parsers/`) and SGLang (`function_call/`). This module does not know requests, tokenizers or the engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

Style = Literal["none", "object", "named", "python", "xml", "harmony"]


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    """JSON schema of the arguments; empty: any object."""
    strict: bool = False
    """Arguments must obey the schema even where the model is free not to call."""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """One way to write calls. Reading ignores whitespace at the ends of these literals."""

    name: str
    style: Style = "none"
    """A call is an object with name and arguments; a name, then an object; Python's syntax; a tag around each argument;
    or a message of OpenAI's harmony."""
    section: tuple[str, str] = ("", "")
    """Around all calls."""
    open: str = ""
    between: str = ""
    """Name and arguments."""
    close: str = ""
    number: str = ""
    """A regular expression of what stands behind the name: Kimi counts its calls."""
    function: tuple[str, str, str] = ("", "", "")
    """In style "xml": before the name, behind it, and behind the arguments."""
    parameter: tuple[str, str, str] = ("", "", "")
    """In style "xml": before an argument's name, between it and the value, and behind the value."""
    separator: str = ""
    arguments: str = "arguments"
    """Its key in style "object" as the model learned it; `arguments` and `parameters` are both read."""
    bare: str = ""
    """A reply that begins with this character may be a call without a marker, if it names a known tool."""
    reasoning: tuple[str, str] | None = ("<think>", "</think>")
    answer: str = ""
    """What the model writes before an answer that is no call."""
    hidden: tuple[str, ...] = ()
    """Markers that are read beside the literals above."""

    @property
    def trigger(self) -> str:
        """What announces a call in the middle of text; "" where nothing does."""
        if self.bare and self.section[0]:
            return ""
        marker = MARKER.match(self.section[0])
        return marker[0] if marker else next(iter(self.open.split()), "")

    @property
    def markers(self) -> frozenset[str]:
        """All that may be a token of its own."""
        literals = (*self.section, self.open, self.between, self.close, self.answer, *(self.reasoning or ()))
        literals += (*self.function, *self.parameter)
        return frozenset(self.hidden).union(*map(MARKER.findall, literals))

    def tokens(self, token_id: Callable[[str], int | None]) -> dict[str, int]:
        """The markers that are one token of a vocabulary, which `token_id` looks up: they must stay visible."""
        found = {marker: token_id(marker) for marker in self.markers}
        return {marker: number for marker, number in found.items() if number is not None}

    def opens_reasoning(self, prompt_tail: str) -> bool:
        """The prompt's template has already written the marker that begins a reasoning section."""
        return self.reasoning is not None and prompt_tail.rstrip().endswith(self.reasoning[0])


MARKER = re.compile(r"<[^<>\s]+>|\[[A-Z_/]+\]")
"""The parts of a literal that may be tokens of their own."""

_CALLS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_ROWS = (
    Format(name="plain"),
    # Hermes 2 Pro, Qwen2.5, Qwen3, and the built-in demo model.
    Format(name="hermes", style="object", open="<tool_call>\n", close="\n</tool_call>", separator="\n"),
    # Llama 3.1 to 3.3, and Llama 4 with its own template.
    Format(name="llama3", style="object", open="<|python_tag|>", separator="; ", arguments="parameters", bare="{"),
    # Mistral's tokenizers from v11 on, then the older ones.
    Format(
        name="mistral", style="named", open="[TOOL_CALLS]", between="[ARGS]", hidden=("[CALL_ID]",),
        reasoning=("[THINK]", "[/THINK]"),
    ),
    Format(name="mistral-list", style="object", section=("[TOOL_CALLS] [", "]"), separator=", "),
    # DeepSeek V3 and R1, then V3.1.
    Format(
        name="deepseek", style="named", section=_CALLS, open="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        between="\n```json\n", close="\n```<｜tool▁call▁end｜>", separator="\n",
    ),
    Format(
        name="deepseek-v3.1", style="named", section=_CALLS, open="<｜tool▁call▁begin｜>", between="<｜tool▁sep｜>",
        close="<｜tool▁call▁end｜>",
    ),
    # gpt-oss: https://cookbook.openai.com/articles/openai-harmony. A call ends the reply.
    Format(
        name="harmony", style="harmony", open="<|channel|>commentary to=functions.",
        between=" <|constrain|>json<|message|>", close="<|call|>", answer="<|channel|>final<|message|>",
        reasoning=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"), hidden=("<|return|>",),
    ),
    # Llama 4 and 3.2 with vLLM's pythonic templates, ToolACE.
    Format(name="pythonic", style="python", section=("[", "]"), separator=", ", bare="["),
    # LFM2 and LFM2.5.
    Format(
        name="lfm2", style="python", section=("<|tool_call_start|>[", "]<|tool_call_end|>"), separator=", ",
    ),
    # Granite 3.0 to 3.3; from 4.0 on it is "hermes". Then NVIDIA's Nemotron Nano v2.
    Format(name="granite", style="object", section=("<|tool_call|>[", "]"), separator=", "),
    Format(name="nemotron", style="object", section=("<TOOLCALL>[", "]</TOOLCALL>"), separator=", "),
    # Kimi K2, whose numbers count the calls of a conversation.
    Format(
        name="kimi", style="named", section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        open="<|tool_call_begin|>functions.", number=":[0-9]{1,6}", between="<|tool_call_argument_begin|>",
        close="<|tool_call_end|>",
    ),
    Format(
        name="qwen3-coder", style="xml", open="<tool_call>\n", close="\n</tool_call>", separator="\n",
        function=("<function=", ">\n", "</function>"), parameter=("<parameter=", ">\n", "\n</parameter>\n"),
    ),
    Format(
        name="seed-oss", style="xml", open="<seed:tool_call>\n", close="\n</seed:tool_call>", separator="\n",
        function=("<function=", ">\n", "</function>"), parameter=("<parameter=", ">", "</parameter>\n"),
        reasoning=("<seed:think>", "</seed:think>"),
    ),
    # GLM 4.5 to 4.7 (which leaves the newlines out), Ling 3 and Laguna.
    Format(
        name="glm", style="xml", open="<tool_call>", separator="\n", function=("", "\n", "</tool_call>"),
        parameter=("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
    ),
    Format(
        name="minimax", style="xml", section=("<minimax:tool_call>\n", "</minimax:tool_call>"),
        open='<invoke name="', function=("", '">\n', "</invoke>\n"),
        parameter=('<parameter name="', '">', "</parameter>\n"),
    ),
)  # fmt: skip
FORMATS: dict[str, Format] = {row.name: row for row in _ROWS}

_SIGNS: tuple[tuple[str, str], ...] = (
    ("harmony", r"<\|channel\|>"),
    ("deepseek", r"(?s)<｜tool▁calls▁begin｜>.*```json"),
    ("deepseek-v3.1", r"<｜tool▁calls▁begin｜>"),
    ("mistral", r"\[ARGS\]"),
    ("mistral-list", r"\[TOOL_CALLS\]"),
    ("kimi", r"<\|tool_calls_section_begin\|>"),
    ("minimax", r"<minimax:tool_call>"),
    ("seed-oss", r"<seed:tool_call>"),
    ("lfm2", r"<\|tool_(call|list)_start\|>"),
    ("granite", r"<\|tool_call\|>"),
    ("nemotron", r"<TOOLCALL>"),
    ("qwen3-coder", r"(?s)<function=.*<parameter="),
    ("glm", r"<arg_key>"),
    ("plain", r"(?s)<invoke name=|<tool_calls>\[|<function=.*</function>"),  # of MiniMax M3, Apriel and Functionary
    ("hermes", r"<tool_call>"),
    ("pythonic", r"\[func_name1\("),
    ("llama3", r"<\|python_tag\|>|\"parameters\": ?' ?}}"),
)
"""What in a chat template tells its format; the first that is found decides."""


def detect(template_source: str, tool_format: str = "auto") -> Format:
    """The format that a chat template speaks, or the named one; "plain" for a template that shows no known calls.

    It has a reasoning section exactly when the template mentions the section's markers.
    """
    if tool_format == "auto":
        tool_format = next((name for name, sign in _SIGNS if re.search(sign, template_source)), "plain")
    found = FORMATS[tool_format]
    pairs = (found.reasoning, ("<think>", "</think>"), ("[THINK]", "[/THINK]"))
    known = (pair for pair in pairs if pair and any(MARKER.findall(end)[0] in template_source for end in pair))
    return msgspec.structs.replace(found, reasoning=next(known, None))
