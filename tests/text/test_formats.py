"""Which format a chat template speaks."""

from __future__ import annotations

import typing

import pytest

from hexad.checkpoints.hub import DEMO_DIRECTORY
from hexad.config import Config
from hexad.text.formats import FORMATS, detect
from tests.text.conversations import TEMPLATES

THINK = ("<think>", "</think>")
SIGNS = {
    "hermes": '{{ \'\\n<tool_call>\\n{"name": "\' ~ tool_call.name ~ \'", "arguments": \' }}',
    "qwen3-coder": "<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n",
    "deepseek": "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + type + '<｜tool▁sep｜>' + name + '\\n' + '```json'",
    "deepseek-v3.1": "{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'+ name + '<｜tool▁sep｜>' + arguments}}",
    "mistral": "{{- '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}",
    "mistral-list": '{{- "[TOOL_CALLS] [" }}',
    "glm": "<tool_call>{{ name }}\n<arg_key>{{ key }}</arg_key>",
    "kimi": "<|tool_calls_section_begin|>{%- for tool_call in message['tool_calls'] -%}<|tool_call_begin|>",
    "minimax": '<minimax:tool_call>\n<invoke name="tool-name-1">',
    "seed-oss": "<seed:tool_call>\n<function=example_function_name>\n<parameter=parameter_1>value_1</parameter>",
    "lfm2": "{{- '<|tool_call_start|>[' + calls + ']<|tool_call_end|>' }}",
    "granite": "respond only with <|tool_call|> followed by a JSON list of tools used",
    "nemotron": "{{- '<TOOLCALL>[' -}}",
    "harmony": "{{- '<|start|>assistant<|channel|>analysis<|message|>' + message.content + '<|end|>' }}",
    "pythonic": "[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)]",
    "llama3": "{{- '<|python_tag|>' + tool_call.name + '.call(' }}",
    "plain": "{% for message in messages %}{{ message.content }}{% endfor %}",
}


@pytest.mark.parametrize("name", SIGNS)
def test_a_template_tells_its_format(name: str) -> None:
    found = detect(SIGNS[name])
    assert found.name == name
    if name != "harmony":
        assert found.reasoning is None
        assert detect(SIGNS[name] + "{{ '<think>\\n' }}").reasoning == THINK
        assert detect(SIGNS[name] + "{{ '[THINK]' }}").reasoning == ("[THINK]", "[/THINK]")
    else:
        assert found.reasoning == FORMATS["harmony"].reasoning


def test_whole_templates() -> None:
    told = {name: detect(source) for name, source in TEMPLATES.items()}
    assert {name: told[name].name for name in ("qwen3", "llama3", "mistral")} == {
        "qwen3": "hermes", "llama3": "llama3", "mistral": "mistral-list",
    }  # fmt: skip
    assert told["qwen3"].reasoning == THINK
    demo = detect((DEMO_DIRECTORY / "chat_template.jinja").read_text())
    assert (demo.name, demo.reasoning) == ("hermes", None)


def test_a_format_that_is_not_known_is_not_taken_for_one_that_is() -> None:
    for unknown in (
        "{{ ns_token + '<tool_call>' + ns_token + '<invoke name=\"' + name }}",
        "within <tool_call></tool_call> XML tags <tool_calls>[{",
        "{{ '<|python_tag|>' + code }}{{ '<function=' + name + '>' + arguments + '</function>' }}",
        """{{- '"parameters": '|indent(8, first=true) }}""",
    ):
        assert detect(unknown).name == "plain"


def test_the_setting_names_every_format() -> None:
    (annotation,) = [typing.get_type_hints(Config)["tool_format"]]
    assert set(typing.get_args(annotation)) == {"auto", *FORMATS}
    assert detect(SIGNS["hermes"], "pythonic").name == "pythonic"


def test_markers_that_are_tokens() -> None:
    known = {"<tool_call>": 7, "</tool_call>": 8, "<think>": 9, "other": 10}
    assert FORMATS["hermes"].tokens(known.get) == {"<tool_call>": 7, "</tool_call>": 8, "<think>": 9}
    assert {"<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|call|>", "<|return|>", "<|constrain|>"} == (
        FORMATS["harmony"].markers
    )
