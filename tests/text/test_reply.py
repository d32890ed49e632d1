"""Replies in every format, cut everywhere; against what was written, and against the models' own templates."""

from __future__ import annotations

import gc
import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexad.text.chat_template import ChatTemplate
from hexad.text.formats import FORMATS
from hexad.text.reply import ReplyParser, Text
from tests.text.conversations import TEMPLATES
from tests.text.replies import PYTHONIC_ONE_KIND, TOOLS, WRITERS, Calls, Said, parse, put_together

CALLS: Calls = [
    (
        "get_weather",
        {"city": 'Köln "am" \\Rhein\\ \n日本 😀', "days": 3, "exact": True, "options": {"a": [1, {}, None]}},
    ),
    ("noop", {}),
]


def expected(reasoning: str, content: str, calls: Calls) -> Said:
    return Said(content, reasoning, [[name, json.dumps(arguments)] for name, arguments in calls])


def same(found: Said, wanted: Said) -> bool:
    return (found.content, found.reasoning) == (wanted.content, wanted.reasoning) and [
        (name, json.loads(arguments)) for name, arguments in found.calls
    ] == [(name, json.loads(arguments)) for name, arguments in wanted.calls]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("calls", [[], CALLS[:1], CALLS, CALLS[::-1]], ids=["no call", "one", "two", "two others"])
@pytest.mark.parametrize("content", ["", "Let me see, 1 < 2 [sic]."], ids=["no content", "content"])
@pytest.mark.parametrize("reasoning", ["", "The user asks\n\nfor <tool_ca…"], ids=["no reasoning", "reasoning"])
def test_what_was_written_is_read_however_it_is_cut(kind: str, reasoning: str, content: str, calls: Calls) -> None:
    format, write = WRITERS[kind]
    if kind == PYTHONIC_ONE_KIND and content:
        calls = []
    reply = write(reasoning, content, calls)
    whole = parse(format, [reply])
    assert same(whole, expected(reasoning, content, calls)), whole
    assert parse(format, reply) == whole
    for cut in range(1, len(reply)):
        assert parse(format, [reply[:cut], reply[cut:]]) == whole


TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("<>[]{}|\"'\\\n/"), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "city": TEXTS,
        "days": st.integers(-(2**40), 2**40),
        "exact": st.booleans(),
        "factor": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "options": st.dictionaries(TEXTS, JSON, max_size=3),
        "places": st.lists(JSON, max_size=3),
    },
)


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=80)
@given(data=st.data())
def test_any_call_is_read(kind: str, data: st.DataObject) -> None:
    calls = data.draw(st.lists(st.tuples(st.sampled_from(["get_weather", "noop"]), ARGUMENTS), min_size=1, max_size=3))
    calls = [(name, arguments if name == "get_weather" else {}) for name, arguments in calls]
    format, write = WRITERS[kind]
    if end := FORMATS[format].parameter[2].strip():  # the format has no way to write its own end tag inside a text
        calls = [(name, {k: v for k, v in each.items() if end not in str(v)}) for name, each in calls]
    reply = write("", "", calls)
    whole = parse(format, [reply])
    assert same(whole, expected("", "", calls)), reply
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=8)))
    assert parse(format, [reply[a:b] for a, b in zip([0, *cuts], [*cuts, len(reply)], strict=True)]) == whole


MARKERS = sorted({marker for row in FORMATS.values() for marker in row.markers})
PARTS = [
    *"{}[]()<> \n\\'\"xa,;:=",
    '"name": "noop"',
    '"arguments": ',
    '"parameters": {}',
    "noop(",
    "a=1",
    "<function=",
    "noop>",
]
PARTS += ["<parameter=", "a>", "</parameter>", "</function>", "functions.noop", " to=", "null", "```json"]


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=250)
@given(pieces=st.lists(st.sampled_from(MARKERS) | st.sampled_from(PARTS), max_size=14), thinking=st.booleans())
def test_no_text_breaks_the_parser_and_cutting_makes_no_difference(
    format: str, pieces: list[str], thinking: bool
) -> None:
    whole = parse(format, ["".join(pieces)], thinking=thinking)
    assert parse(format, pieces, thinking=thinking) == whole
    assert parse(format, "".join(pieces), thinking=thinking) == whole
    if not whole.calls and not thinking and format != "harmony":
        assert whole == Said(content="".join(pieces))


@pytest.mark.parametrize(
    ("format", "reply"),
    [
        ("hermes", 'Well.\n<tool_call>\n{"nme": "noop"}\n</tool_call> bye'),
        ("hermes", "<tool_call>\nnoop()\n</tool_call>"),
        ("hermes", '<tool_call>{"name": "not a name", "arguments": {}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "noop", "arguments": 5}</tool_call>'),
        ("hermes", '<tool_call>{"arguments": {"a": 1}, "name'),
        ("hermes", " \n<tool_cal"),
        ("hermes", 'A list of "<" and "<tool_calls>".'),
        ("llama3", '{"name": "Bob", "parameters": {"age": 5}}'),
        ("llama3", '{"age": 5}'),
        ("llama3", "<|python_tag|>print(1)"),
        ("mistral", "[TOOL_CALLS]"),
        ("mistral", "[TOOL_CALLS]noop{}"),
        ("mistral-list", "[TOOL_CALLS] []"),
        ("deepseek", "<｜tool▁calls▁begin｜>sorry<｜tool▁calls▁end｜>"),
        ("pythonic", "[1, 2, 3]"),
        ("pythonic", "[x for x in noop()]"),
        ("pythonic", "[noop(__import__('os').system('true'))]"),
        ("pythonic", "[noop(a=__import__('os').system('true'))]"),
        ("pythonic", "[noop(a=open)]"),
        ("pythonic", "[unknown(a=1)]"),
        ("pythonic", f"[noop(a={'[' * 100}{']' * 100})]"),
        ("qwen3-coder", "<tool_call>\n<parameter=a>\n1\n</parameter>\n</tool_call>"),
        ("glm", "<tool_call>not a name</tool_call>"),
        ("glm", '<tool_call>{"name": "noop", "arguments": {}}</tool_call>'),
        ("kimi", "<|tool_calls_section_begin|><|tool_calls_section_end|>"),
        ("kimi", "<|tool_calls_section_begin|><|tool_call_begin|>noop:0<|tool_call_argument_begin|>{}"),
        ("minimax", "<minimax:tool_call>\n<invoke>\n</invoke>\n</minimax:tool_call>"),
        ("granite", "<|tool_call|>[]"),
        ("lfm2", "<|tool_call_start|>[1]<|tool_call_end|>"),
    ],
)
def test_what_is_no_call_is_content_as_it_was_written(format: str, reply: str) -> None:
    for pieces in ([reply], list(reply)):
        assert parse(format, pieces) == Said(content=reply)


def test_a_marker_inside_an_argument_is_an_argument() -> None:
    for kind, (format, write) in WRITERS.items():
        markers = " ".join(sorted(FORMATS[format].markers | {"</tool_call>", "]", ");", "```"}))
        if FORMATS[format].style != "xml":
            calls: Calls = [("get_weather", {"city": markers}), ("noop", {})]
            assert same(parse(format, write("", "", calls)), expected("", "", calls)), kind


def test_keys_in_any_order_and_arguments_as_a_text() -> None:
    for body in (
        '{"arguments": {"city": "a"}, "name": "get_weather"}',
        '{"id": {"x": ["}"]}, "name":"get_weather","parameters":{"city": "a"} }',
        '{"name": "get_weather", "arguments": "{\\"city\\": \\"a\\"}"}',
        '{"type": "function", "arguments": "{\\"city\\": \\"a\\"}", "name": "get_weather"}',
    ):
        assert parse("hermes", f"<tool_call>{body}</tool_call>") == Said(calls=[["get_weather", '{"city": "a"}']])
    for body in ('{"name": "noop"}', '{"name": "noop", "arguments": null}', '{"name": "noop", "arguments": ""}'):
        assert parse("hermes", f"<tool_call>{body}</tool_call>") == Said(calls=[["noop", "{}"]])


def test_a_call_of_a_tool_that_nobody_offered_is_a_call_where_a_marker_says_so() -> None:
    assert parse("hermes", '<tool_call>{"name": "other", "arguments": {}}</tool_call>').calls == [["other", "{}"]]
    assert parse("llama3", '<|python_tag|>{"name": "other", "parameters": {}}').calls == [["other", "{}"]]
    assert parse("llama3", '{"name": "other", "parameters": {}}').calls == []


def test_without_tools_no_call_is_looked_for() -> None:
    reply = '<tool_call>{"name": "noop", "arguments": {}}</tool_call> '
    assert parse("hermes", reply, []) == Said(content=reply)
    assert parse("llama3", '{"name": "noop", "parameters": {}}', []).calls == []


def test_a_reply_that_is_cut_off_leaves_what_was_written_of_its_arguments() -> None:
    for kind, (format, write) in WRITERS.items():
        if FORMATS[format].style != "python":  # there a call begins when it is complete
            reply = write("", "", [("get_weather", {"city": "somewhere"})])
            cut = reply[: reply.index("where")]
            assert parse(format, cut) == parse(format, [cut]) == Said(calls=[["get_weather", '{"city": "some']]), kind


@pytest.mark.parametrize("kind", WRITERS)
def test_a_call_is_made_once_its_arguments_are_complete(kind: str) -> None:
    format, write = WRITERS[kind]
    reply = write("", "", [("get_weather", {"city": "somewhere", "days": 2})])
    for end in range(len(reply) + 1):
        parser = ReplyParser(FORMATS[format], tools=TOOLS, thinking=True)
        said = put_together([*parser.push(reply[:end]), *parser.finish(cut=True)])
        arguments = {"city": "somewhere", "days": 2} if parser.has_called else None
        assert [is_json(text) for _, text in said.calls] == [arguments] * len(said.calls), reply[:end]
    assert parser.has_called, "the whole reply"


def is_json(text: str) -> Any:
    """What it says, or None."""
    with suppress(ValueError):
        return json.loads(text)


def test_broken_json_goes_on_as_it_is() -> None:
    assert parse("hermes", '<tool_call>{"name": "noop", "arguments": {\'a\': 1,}}</tool_call>') == Said(
        calls=[["noop", "{'a': 1,}"]]
    )
    said = parse("hermes", '<tool_call>{"name": "noop", "arguments": {"a": 1]} </tool_call> bye')
    assert said.calls[0][0] == "noop" and said.content.endswith("bye")


def test_calls_and_content_may_take_turns() -> None:
    """Words on both sides of a call are not glued together."""
    call = '<tool_call>\n{"name": "noop", "arguments": {}}\n</tool_call>'
    for pieces in ([f"a {call}\n b\n{call} c \n{call}\n"], f"a {call}\n b\n{call} c \n{call}\n"):
        assert parse("hermes", pieces) == Said("a\n b c", "", [["noop", "{}"]] * 3)
    assert parse("hermes", f"\n{call} a ") == Said("a ", "", [["noop", "{}"]])


def test_a_call_in_harmony_is_one_whatever_its_arguments_are() -> None:
    for body, arguments in (("", "{}"), (" \n", "{}"), ("not json", "not json"), ('{"a": 1}', '{"a": 1}')):
        reply = f"<|channel|>commentary to=functions.noop <|constrain|>json<|message|>{body}"
        for whole in (f"{reply}<|call|>", reply):
            assert parse("harmony", whole) == parse("harmony", [whole]) == Said(calls=[["noop", arguments]]), whole


def test_reasoning_is_at_the_beginning_and_the_prompt_may_have_opened_it() -> None:
    assert parse("hermes", "\n<think>a</think>b <think>c</think>") == Said("b <think>c</think>", "a")
    assert parse("hermes", "a\n</think>\n\nb", prompt_tail="<|im_start|>assistant\n<think>\n") == Said("b", "a")
    assert parse("hermes", "a</think>b", prompt_tail="<think>\n\n</think>\n\n") == Said("a</think>b")
    assert parse("hermes", "<think>a", thinking=True) == Said("", "a")
    assert parse("hermes", "<think>a</think>b", thinking=False) == Said("<think>a</think>b")
    assert parse("plain", "<think>a</think>b", []) == Said("b", "a")


def test_a_pythonic_call_is_read_as_python_writes_it() -> None:
    values = """city='it\\'s "a" \\u00e9\\x41\\n', days=-5, exact=False, factor=None, places=["a",[1.5,],{'k':True}],"""
    said = parse("pythonic", f"[get_weather({values}), noop ( )]\n")
    assert json.loads(said.calls[0][1]) == {
        "city": 'it\'s "a" éA\n', "days": -5, "exact": False, "factor": None, "places": ["a", [1.5], {"k": True}],
    }  # fmt: skip
    assert said.calls[1:] == [["noop", "{}"]] and not said.content


def test_parameters_in_tags_have_the_type_of_the_schema() -> None:
    def read(key: str, value: str) -> Any:
        call = f"<tool_call>\n<function=get_weather>\n<parameter={key}>{value}</parameter>\n</function>\n</tool_call>"
        return json.loads(parse("qwen3-coder", call).calls[0][1])[key]

    assert read("city", "\n5\n") == "5"
    assert read("city", "\n\n a\n b \n\n") == "\n a\n b \n"
    assert read("city", "null") == "null"
    exact = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>\n a\n</arg_value>\n</tool_call>"
    assert json.loads(parse("glm", exact).calls[0][1]) == {"city": "\n a\n"}
    assert read("days", "\n5\n") == 5
    assert read("days", "five") == "five"
    assert read("exact", "True") is True
    assert read("factor", "None") is None
    assert read("factor", "NaN") == "NaN"
    assert read("options", "{'a': [1, \"b\"]}") == {"a": [1, "b"]}
    assert read("places", "[1, 2") == "[1, 2"
    assert read("other", "5") == "5"


@pytest.mark.parametrize("name", ["qwen3", "llama3", "mistral"])
def test_what_a_models_own_template_writes_is_read(name: str) -> None:
    format = {"qwen3": "hermes", "llama3": "llama3", "mistral": "mistral-list"}[name]
    calls = CALLS if name != "llama3" else CALLS[:1]
    message = {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "x", "type": "function", "function": {"name": tool, "arguments": arguments}}
            for tool, arguments in calls
        ],
    }
    template = ChatTemplate(TEMPLATES[name], {"bos_token": "<s>", "eos_token": "</s>"})
    asked = [{"role": "user", "content": "Weather?"}]
    before = template.render(asked, add_generation_prompt=True)
    after = template.render([*asked, message], add_generation_prompt=False)
    assert after.startswith(before)
    reply = after.removeprefix(before).removesuffix("<|im_end|>\n").removesuffix("<|eot_id|>").removesuffix("</s>")
    assert same(parse(format, reply), expected("", "", calls))


def test_only_what_may_become_a_marker_is_held_back() -> None:
    parser = ReplyParser(FORMATS["hermes"], tools=TOOLS, thinking=True)
    assert parser.push("Hello <") == [Text("Hello")]
    assert parser.push("b> <tool_cal") == [Text(" <b>")]
    assert parser.push("m>") == [Text(" <tool_calm>")]
    said = put_together(parser.push('<tool_call>{"name": "noop", "arguments": {"a": "b\\'))
    assert said.calls == [["noop", '{"a": "b\\']]
    parser = ReplyParser(FORMATS["llama3"], tools=TOOLS, thinking=True)
    assert parser.push('{"answer"') == []
    assert put_together(parser.push(": 5, ")).content == '{"answer": 5,'


HOSTILE = {
    "near matches": ("hermes", "<<<<tool_cal"),
    "space": ("hermes", " "),
    "failing calls": ("hermes", '<tool_call>{"'),
    "a text in arguments": ("hermes", '\\"x', '<tool_call>{"name": "noop", "arguments": {"a": "'),
    "depth": ("hermes", '[{"a":', '<tool_call>{"name": "noop", "arguments": {"a": '),
    "early arguments": ("hermes", '{"a":', '<tool_call>{"arguments": '),
    "a long name": ("hermes", "a", '<tool_call>{"name": "'),
    "ids": ("mistral", "[CALL_ID]a", "[TOOL_CALLS]noop"),
    "tags": ("qwen3-coder", "\n</parame", "<tool_call><function=get_weather><parameter=city>"),
    "python": ("pythonic", "'a\\'', ", "[noop(a=["),
    "values": ("glm", "</arg_valu", "<tool_call>get_weather<arg_key>city</arg_key><arg_value>"),
    "keys": ("glm", "a</arg_key>", "<tool_call>get_weather<arg_key>"),
    "numbers": ("kimi", "a:9", "<|tool_calls_section_begin|><|tool_call_begin|>functions."),
    "headers": ("harmony", "<|channel|>"),
    "ends": ("harmony", "<|en", "<|channel|>final<|message|>"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_work_is_linear(kind: str) -> None:
    """A megabyte, whole; and character by character no slower, for each, when there are ten times as many."""
    format, unit, *start = HOSTILE[kind]

    def seconds_per_character(count: int, in_pieces: bool) -> float:
        text = "".join(start) + unit * (count // len(unit))
        pieces = list(text) if in_pieces else [text]
        parser = ReplyParser(FORMATS[format], tools=TOOLS, thinking=True)
        gc.disable()  # as `timeit` does: what other tests left behind is not to be looked through now
        try:
            started = time.thread_time()
            for piece in pieces:
                parser.push(piece)
            parser.finish()
            return (time.thread_time() - started) / len(text)
        finally:
            gc.enable()

    assert seconds_per_character(1_000_000, in_pieces=False) < 5e-6
    few = min(seconds_per_character(10_000, in_pieces=True) for _ in range(3))
    assert seconds_per_character(100_000, in_pieces=True) < 4 * few + 1e-6
