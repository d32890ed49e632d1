"""Rendering against transformers' own, and templates that try to break out or to use up the machine."""

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from hexad.errors import BadRequest, CheckpointError
from hexad.text import template_sandbox
from hexad.text.chat_template import ChatTemplate
from tests.text.conversations import CONVERSATIONS, TEMPLATES, TOOLS

LLAMA3, MISTRAL, QWEN3 = (TEMPLATES[name] for name in ("llama3", "mistral", "qwen3"))
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def theirs(source: str, messages: list[dict[str, Any]], **kwargs: Any) -> str:
    rendered, _ = render_jinja_template(conversations=[messages], chat_template=source, **SPECIAL, **kwargs)
    return str(rendered[0])


def assert_same(source: str, messages: list[dict[str, Any]], **kwargs: Any) -> None:
    """Equal text; and where transformers raises, BadRequest."""
    try:
        expected = theirs(source, messages, **kwargs)
    except Exception:
        with pytest.raises(BadRequest):
            ChatTemplate(source, SPECIAL).render(messages, **kwargs)
    else:
        assert ChatTemplate(source, SPECIAL).render(messages, **kwargs) == expected


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("tools", [None, [], TOOLS], ids=["no tools", "empty tools", "tools"])
@pytest.mark.parametrize("prompt", [True, False])
def test_text_is_that_of_transformers(template: str, conversation: str, tools: Any, prompt: bool) -> None:
    assert_same(TEMPLATES[template], CONVERSATIONS[conversation], tools=tools, add_generation_prompt=prompt)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_templates_here_render_in_transformers(template: str) -> None:
    """Or the comparison would be of errors only."""
    for conversation in ("one turn", "system", "turns", "tool use"):
        assert len(theirs(TEMPLATES[template], CONVERSATIONS[conversation], tools=TOOLS)) > 15


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_continuing_the_final_message_is_that_of_transformers(template: str, conversation: str) -> None:
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert_same(TEMPLATES[template], CONVERSATIONS[conversation], **options)


def test_variables_reach_the_template() -> None:
    messages = CONVERSATIONS["one turn"]
    for thinking in (False, True):
        assert_same(QWEN3, messages, add_generation_prompt=True, enable_thinking=thinking)
    assert_same("{{ documents[0].title }}", messages, documents=[{"title": "t"}], add_generation_prompt=True)
    with_date = ChatTemplate(LLAMA3, SPECIAL).render(messages, date_string="1 Jan 2000", bos_token="<begin>")
    assert with_date.startswith("<begin>")
    assert "1 Jan 2000" in with_date


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "x"]), "content": VALUES},
        optional={"tool_calls": VALUES, "reasoning": VALUES, "name": VALUES},
    ),
    max_size=4,
)


@given(MESSAGES, st.sampled_from(list(TEMPLATES)), st.none() | st.lists(VALUES, max_size=2))
@settings(max_examples=300)
def test_odd_messages_render_as_in_transformers_or_are_bad_requests(messages: Any, template: str, tools: Any) -> None:
    if tools is None or all(isinstance(tool, dict) for tool in tools):
        assert_same(TEMPLATES[template], messages, tools=tools, add_generation_prompt=True)


@pytest.fixture
def checkpoint(tokenizer_directories: dict[str, Path], tmp_path: Path) -> Path:
    for name in ("tokenizer.json", "special_tokens_map.json"):
        (tmp_path / name).write_bytes((tokenizer_directories["mistral"] / name).read_bytes())
    return tmp_path


CONFIGURED = "configured {{ messages[0].content }}{{ bos_token }}"
NAMED = [{"name": "default", "template": CONFIGURED}, {"name": "tool_use", "template": "with {{ tools|length }} tools"}]


@pytest.mark.parametrize("in_config", [CONFIGURED, NAMED], ids=["string", "named"])
@pytest.mark.parametrize("files", [{}, {"chat_template.jinja": "file {{ eos_token }}"}, {
    "chat_template.jinja": "file {{ eos_token }}", "additional_chat_templates/tool_use.jinja": "tool file",
}], ids=["no file", "file", "files"])  # fmt: skip
@pytest.mark.parametrize("tools", [None, [], TOOLS], ids=["no tools", "empty tools", "tools"])
def test_the_template_is_found_where_transformers_finds_it(
    checkpoint: Path, in_config: Any, files: dict[str, str], tools: Any
) -> None:
    config = {"chat_template": in_config, "tokenizer_class": "PreTrainedTokenizerFast"}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_text(text)
    messages = CONVERSATIONS["one turn"]
    expected = AutoTokenizer.from_pretrained(checkpoint).apply_chat_template(messages, tools=tools, tokenize=False)
    template = ChatTemplate.load(checkpoint, SPECIAL)
    assert template is not None
    assert template.render(messages, tools=tools, add_generation_prompt=False) == expected


def test_a_model_without_a_template_has_none(checkpoint: Path) -> None:
    assert ChatTemplate.load(checkpoint, SPECIAL) is None


DAMAGED = [3, [], [{"name": "default"}], [{"name": 1, "template": "x"}], "{% for %}", "{{ x|no }}"]


@pytest.mark.parametrize("value", DAMAGED)
def test_a_damaged_template_names_its_file(checkpoint: Path, value: Any) -> None:
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(CheckpointError, match=str(checkpoint)):
        ChatTemplate.load(checkpoint, SPECIAL)


def test_errors_name_the_parameter() -> None:
    with pytest.raises(BadRequest, match="must alternate") as refused:
        ChatTemplate(MISTRAL, SPECIAL).render(CONVERSATIONS["wrong order"])
    assert refused.value.param == "messages"
    with pytest.raises(BadRequest, match="line 1") as broken:
        ChatTemplate("{% if %}")
    assert broken.value.param == "chat_template"
    with pytest.raises(BadRequest) as both:
        ChatTemplate(QWEN3).render(CONVERSATIONS["turns"], continue_final_message=True)
    assert both.value.param == "continue_final_message"
    for messages in ("text", {"role": "user"}, ["text"], [{"role": "user", "content": object()}]):
        with pytest.raises(BadRequest) as wrong:
            ChatTemplate(QWEN3).render(messages)  # type: ignore[arg-type]
        assert wrong.value.param == "messages"


def test_messages_that_are_nested_too_deeply_are_bad_requests() -> None:
    content: list[Any] = []
    for _ in range(5000):
        content = [content]
    with pytest.raises(BadRequest, match="levels deep"):
        ChatTemplate("{{ messages }}").render([{"role": "user", "content": content}])


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.append({}) }}",
    "{{ messages[0].update(role='x') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ ('{0.__class__.__init__.__globals__}'|attr('format'))(messages) }}",
    "{% set n = namespace(__class__=1) %}",
    "{{ cycler.__init__.__globals__.os }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends 'x' %}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_the_sandbox_holds(source: str) -> None:
    messages = [{"role": "user", "content": "x"}]
    try:
        text = ChatTemplate(source).render(messages)
    except BadRequest:
        text = ""
    assert not any(sign in text for sign in ("class '", "<module", "<function", "root:"))
    assert messages == [{"role": "user", "content": "x"}]


def _doubling(value: str, times: int = 60) -> str:
    return f"{{% set n = namespace(x='ab') %}}{{% for i in range({times}) %}}{{% set n.x = {value} %}}{{% endfor %}}"


_TURNS = "{% for i in range(100000) %}"
BOMBS = {
    "repeat": "{{ 'a' * 3000000000 }}",
    "repeat, at compile time": "{% if 'a' * 3000000000 %}{% endif %}",
    "repeat from the left": "{{ 3000000000 * 'a' }}",
    "repeat a list": "{{ [1] * 3000000000 }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "product": "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "plus": _doubling("n.x + n.x"),
    "tilde": _doubling("n.x ~ n.x"),
    "join": _doubling("[n.x, n.x]|join(n.x)"),
    "join method": _doubling("n.x.join([n.x, n.x])"),
    "replace": _doubling("n.x|replace('a', n.x)"),
    "replace method": _doubling("n.x.replace('', n.x)"),
    "percent": _doubling("'%s%s' % (n.x, n.x)"),
    "format": _doubling("'{0}{0}'.format(n.x)"),
    "format filter": _doubling("'%s%s'|format(n.x, n.x)"),
    "format_map": _doubling("'{a}{a}'.format_map({'a': n.x})"),
    "list plus": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "nested lists": _doubling("[n.x, n.x]") + "{{ n.x }}",
    "nested lists as json": _doubling("[n.x, n.x]") + "{{ n.x|tojson }}",
    "nested lists as a string": _doubling("[n.x, n.x]") + "{{ n.x|string }}",
    "nested lists joined": _doubling("[n.x, n.x]") + "{{ [n.x]|join }}",
    "nested lists by tilde": _doubling("[n.x, n.x]") + "{{ n.x ~ '' }}",
    "nested lists by percent": _doubling("[n.x, n.x]") + "{{ '%s' % n.x }}",
    "nested dicts": _doubling("{'a': n.x, 'b': n.x}") + "{{ n.x }}",
    "nested namespaces": "{% set n = namespace(x=1) %}{% for i in range(60) %}"
    "{% set n.x = [namespace(y=n.x), namespace(y=n.x)] %}{% endfor %}{{ n.x }}",
    "center": "{{ 'a'|center(3000000000) }}",
    "ljust": "{{ 'a'.ljust(3000000000) }}",
    "indent": "{{ 'a\n'|indent(3000000000, true) }}",
    "indent many lines": "{{ ('a\n' * 1000000)|indent(1000000) }}",
    "json indent": "{{ [[[1]]]|tojson(indent=3000000000) }}",
    "expandtabs": "{{ ('\t' * 1000000).expandtabs(1000000) }}",
    "wide percent": "{{ '%999999999d' % 1 }}",
    "wide percent by star": "{{ '%*d' % (999999999, 1) }}",
    "wide format": "{{ '{:999999999}'.format(1) }}",
    "wide format, nested": "{{ '{:{}}'.format(1, 999999999) }}",
    "wordwrap": "{{ ('a ' * 1000000)|wordwrap(1, true, 'x' * 1000000) }}",
    "sum of lists": "{{ [[1] * 1000000] * 100000|sum(start=[]) }}",
    "sum of many lists": "{{ ([[1] * 1000] * 1000000)|sum(start=[]) }}",
    "nested loops": _TURNS * 2 + "{% endfor %}" * 2,
    "loops without calls": "{% set r = range(100000)|list %}" + "{% for i in r %}" * 4 + "{% endfor %}" * 4,
    "nested loops with calls": _TURNS * 2 + "{{ range(3) }}" + "{% endfor %}" * 2,
    "filtered loops": _TURNS + "{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
    "loops over filters": _TURNS + "{{ range(100000)|list|length }}{% endfor %}",
    "large output": _TURNS + "x" * 1000 + "{% endfor %}",
    "large output in a macro": "{% macro m() %}" + _TURNS + "x" * 1000 + "{% endfor %}{% endmacro %}{{ m() }}",
    "large output in a block": "{% set b %}" + _TURNS + "{{ 'x' * 100000 }}{% endfor %}{% endset %}",
    "large output in no time": "{% set b = 'x' * 8000000 %}{% set c %}{% for i in 'abcdef' %}{{ b }}{% endfor %}"
    "{% endset %}",
    "range": "{% for i in range(1000000000) %}{% endfor %}",
    "endless macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "branching macro": "{% macro m(d) %}{% if d %}{% set a = m(d-1) ~ m(d-1) %}{% endif %}{% endmacro %}{{ m(60) }}",
    "endless loop": "{% for i in [[1]] recursive %}{{ loop([i]) }}{% endfor %}",
    "date": "{{ strftime_now('%c' * 1000000) }}",
    "deep source": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep blocks": "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "long source": "{{ x }}" * 20_000,
    "translate": "{{ ('a' * 1000000).translate({97: 'b' * 1000000}) }}",
    "batch": "{{ range(100)|batch(3000000000, 'x')|list }}",
    "rounding": "{{ 1.5|round(3000000000) }}",
    "filters over a string": "{{ ('a' * 8000000)|map('upper')|select|sort|list }}",
    "groups": "{{ ('a' * 8000000)|groupby(0) }}",
    "attributes": "{{ ([1] * 1000000)|selectattr('a')|list }}",
    "pretty printing": "{{ ([1] * 1000000)|pprint }}",
    "slice": "{{ range(100)|slice(3000000000)|list }}",
    "urlize": "{{ ('http://a ' * 900000)|urlize }}",
}  # fmt: skip


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """2 GiB more than now: a bomb that goes off fails its test, not the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2 * 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.usefixtures("bounded_memory")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_stopped_in_time(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.5)
    started = time.thread_time()
    with pytest.raises(BadRequest) as stopped:
        ChatTemplate(BOMBS[bomb]).render([{"role": "user", "content": "x"}])
    assert stopped.value.param == "chat_template"
    assert "MemoryError" not in str(stopped.value)
    assert time.thread_time() - started < 3


def test_a_long_conversation_is_rendered() -> None:
    messages = [{"role": role, "content": "some words " * 40} for role in ("user", "assistant")] * 4000
    assert ChatTemplate(QWEN3).render(messages) == theirs(QWEN3, messages, add_generation_prompt=True)
