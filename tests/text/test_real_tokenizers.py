"""Every format with the vocabulary and the template of a model that writes it: prompts, replies, and grammars.

What a reply looks like is spelled out in `replies.py`, from the vendors' documents; the tokens are the vendors'.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from hexad.decoding.grammar import Vocabulary, Walk
from hexad.errors import BadRequest
from hexad.text.chat_template import ChatTemplate
from hexad.text.detokenizer import Detokenizer
from hexad.text.formats import Format, Tool, detect
from hexad.text.grammar import SPACING
from hexad.text.reply import ReplyParser
from hexad.text.reply_grammar import reply_grammar
from hexad.text.token_bytes import BYTE_LEVEL
from hexad.text.tokenizer import Tokenizer
from tests.real_tokenizers import VENDORS, mistral_file, templates, vendor_directory
from tests.text.conversations import CONVERSATIONS, TOOLS
from tests.text.replies import WRITERS, Said, put_together

pytestmark = pytest.mark.slow

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "exact": {"type": "boolean"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "additionalProperties": False}
OFFERED = [Tool(name="get_weather", parameters=SCHEMA), Tool(name="noop", parameters=NOTHING)]
CALL: tuple[str, dict[str, Any]] = ("get_weather", {"city": "Köln, 日本 😀", "days": 3, "exact": True})
ANSWER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@dataclasses.dataclass
class Model:
    format: Format
    template: ChatTemplate
    tokenizer: Tokenizer
    theirs: Any
    eos: int

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer, [self.eos])

    @property
    def tokens(self) -> dict[str, int]:
        return self.format.tokens(self.tokenizer.token_id)

    def encode(self, text: str) -> list[int]:
        """By the vendor's tokenizer."""
        ids: list[int] = self.theirs.encode(text, add_special_tokens=False)
        return ids

    def pieces(self, ids: list[int]) -> list[str]:
        """As they stream."""
        detokenizer = Detokenizer(self.tokenizer, [], True, frozenset(self.tokens.values()))
        return [*map(detokenizer.push, ids), detokenizer.finish()]

    def read(self, pieces: list[str], thinking: bool = True) -> Said:
        parser = ReplyParser(self.format, tools=OFFERED, thinking=thinking)
        events = [event for piece in pieces for event in parser.push(piece)]
        return put_together([*events, *parser.finish()])

    def compiled(self, **wishes: Any) -> Any:
        grammar = reply_grammar(self.format, tokens=self.tokens, **wishes)
        assert grammar is not None
        return self.vocabulary.compile(grammar)


@functools.cache
def load(name: str) -> Model:
    directory = vendor_directory(name)
    tokenizer = Tokenizer.load(directory)
    template = ChatTemplate.load(directory, tokenizer.special_tokens)
    eos = tokenizer.token_id(VENDORS[name].eos)
    assert template is not None and eos is not None
    theirs = AutoTokenizer.from_pretrained(directory)
    return Model(detect("\n".join(template.sources.values())), template, tokenizer, theirs, eos)


@pytest.fixture(params=VENDORS)
def model(request: pytest.FixtureRequest) -> Model:
    return load(request.param)


def kind_of(model: Model) -> str:
    return next(vendor.kind for name, vendor in VENDORS.items() if load(name) is model)


def write(model: Model, reasoning: str, content: str, calls: list[tuple[str, dict[str, Any]]]) -> str:
    reasoning = reasoning if model.format.reasoning else ""
    return WRITERS[kind_of(model)][1](reasoning, content, calls)


@pytest.mark.parametrize("name", VENDORS)
def test_the_template_tells_the_format(name: str) -> None:
    found = load(name).format
    assert found.name == WRITERS[VENDORS[name].kind][0]
    assert (found.reasoning is not None) is VENDORS[name].thinks


OTHERS = {
    "GLM-4.6": "glm", "GLM-4.7-Flash": "glm", "Kimi-K2-Thinking": "kimi", "moonshotai-Kimi-K2": "kimi",
    "MiniMax-M2": "minimax", "MiniMax-M3": "plain", "ByteDance-Seed-OSS": "seed-oss", "LFM2-8B-A1B": "lfm2",
    "ibm-granite-granite-3.3-2B-Instruct": "granite", "ibm-granite-granite-4.0": "hermes",
    "NVIDIA-Nemotron-Nano-v2": "nemotron", "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "qwen3-coder",
    "Qwen-QwQ-32B": "hermes", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "deepseek",
    "meta-llama-Llama-3.3-70B-Instruct": "llama3", "unsloth-mistral-Devstral-Small-2507": "mistral",
    "google-gemma-2-2b-it": "plain", "deepseek-ai-DeepSeek-V3.2": "plain", "meetkai-functionary-medium-v3.1": "plain",
    "CohereForAI-c4ai-command-r-plus-tool_use": "plain", "unsloth-Apriel-1.5": "plain",
}  # fmt: skip


def test_the_templates_of_other_models_tell_theirs() -> None:
    assert {name: detect((templates() / f"{name}.jinja").read_text()).name for name in OTHERS} == OTHERS


_USED = CONVERSATIONS["tool use"]
CONVERSATIONS_HERE = CONVERSATIONS | {
    "two calls": [
        *_USED[:1],
        _USED[1] | {"reasoning_content": "because", "tool_calls": _USED[1]["tool_calls"] * 2},
        _USED[2] | {"name": "get_weather"},
        _USED[2] | {"content": "none"},
    ]
}

CITY = {"city": {"type": "string", "description": "Its name, in <any> language"}}
PARAMETERS = {"type": "object", "properties": CITY, "required": ["city"]}
DESCRIBED = [
    {"type": "function", "function": {"name": "f", "description": "What it does", "parameters": PARAMETERS}},
]
"""Some templates read descriptions that others do without; firefunction's wants variables of its own."""
OPTIONS: list[dict[str, Any]] = [
    {},
    {"enable_thinking": True, "thinking": True},
    {"enable_thinking": False, "functions": "[]", "datetime": "Monday"},
]


def test_every_template_renders_as_in_transformers() -> None:
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    equal = dict[str, int]()
    for path in sorted(templates().glob("*.jinja")):
        source, equal[path.stem] = path.read_text(), 0
        ours = ChatTemplate(source, special)
        for messages in CONVERSATIONS_HERE.values():
            for tools, options in itertools.product((None, TOOLS[:1], TOOLS, DESCRIBED), OPTIONS):
                wishes: dict[str, Any] = {"tools": tools, "add_generation_prompt": True, **options}
                try:
                    (expected,), _ = render_jinja_template([messages], chat_template=source, **special, **wishes)
                except Exception as error:
                    if "generator" not in str(error):  # is not JSON there; here it is a list
                        with pytest.raises(BadRequest):
                            ours.render(messages, **wishes)
                    continue
                assert ours.render(messages, **wishes) == expected, (path.stem, messages, wishes)
                equal[path.stem] += 1
    assert len(equal) > 60 and min(equal.values()) >= 5, equal


@pytest.mark.parametrize("conversation", ["turns", "tool use", "two calls"])
def test_a_prompt_has_the_tokens_of_transformers(model: Model, conversation: str) -> None:
    messages = CONVERSATIONS_HERE[conversation]
    try:
        expected = model.theirs.apply_chat_template(
            messages, tools=TOOLS[:1], add_generation_prompt=True, return_dict=False
        )
    except Exception:
        with pytest.raises(BadRequest):
            model.template.render(messages, tools=TOOLS[:1])
    else:
        text = model.template.render(messages, tools=TOOLS[:1])
        assert model.tokenizer.encode(text, add_special_tokens=False) == list(expected)


@pytest.mark.parametrize("content", ["", "Let me see: 1 < 2 日本."], ids=["", "content"])
@pytest.mark.parametrize("calls", [[], [CALL], [CALL, ("noop", {})]], ids=["no call", "one", "two"])
def test_a_reply_in_the_vendors_tokens_is_read(model: Model, content: str, calls: list[Any]) -> None:
    if kind_of(model) == "llama3" and len(calls) > 1:
        pytest.skip("Llama 3 writes one call")
    reply = write(model, "The user asks… 😀", content, calls)
    ids = model.encode(reply)
    found = {token: ids.count(number) for token, number in model.tokens.items()}
    assert found == {token: reply.count(token) for token in found}, "a marker was spelled in letters"
    pieces = model.pieces(ids)
    assert "".join(pieces) == reply
    said = model.read(pieces)
    assert (said.content, said.reasoning) == (content, "The user asks… 😀" if model.format.reasoning else "")
    assert [(name, json.loads(text)) for name, text in said.calls] == calls
    for size in (1, 2, 3, 7, len(reply) + 1):
        assert model.read([reply[at : at + size] for at in range(0, len(reply), size)]) == said


def follow(model: Model, matcher: Any, ids: list[int]) -> None:
    """The grammar allows the vendor's tokens, one by one, and forces none that the vendor would not write."""
    walk = Walk(matcher)
    for at, token in enumerate(ids):
        bits = np.unpackbits(walk.allowed(), bitorder="little")
        written = model.tokenizer.decode(ids[: at + 1], skip_special_tokens=False)
        forced = [model.tokenizer.token_text(number) for number in walk.forced]
        assert token < len(bits) and bits[token], f"{written[-60:]!r} is not allowed; forced: {forced}"
        walk.follow(ids[: at + 1])
    if not walk.complete:
        bits = np.unpackbits(walk.allowed(), bitorder="little")
        assert bits[model.eos], "the end is not allowed"


def reply_of_required(model: Model, text: str) -> str:
    """What a grammar writes where the vendor's tokenizer leaves a choice of whitespace."""
    return text.lstrip("\n").removesuffix("<|call|>")


@pytest.mark.parametrize("thinks", [False, True])
def test_the_vendors_tokens_of_a_call_obey_its_grammar(model: Model, thinks: bool) -> None:
    matcher = model.compiled(tools=OFFERED, choice="required", thinking=thinks)
    follow(model, matcher, model.encode(reply_of_required(model, write(model, "Hm 😀." * thinks, "", [CALL]))))


def test_reasoning_then_a_call_or_an_answer(model: Model) -> None:
    answer = f"%json {json.dumps(ANSWER | {'x-guidance': SPACING})}"
    if kind_of(model) == "llama3":
        pytest.skip("an answer in JSON and a call without a marker begin alike")
    matcher = model.compiled(tools=OFFERED, choice="auto", answer=answer, thinking=True)
    for content, calls in ('{"n": 15}', []), ("", [CALL]):
        text = reply_of_required(model, write(model, "Hm 😀.", content, calls))
        follow(model, matcher, model.encode(text.removesuffix("<|end|>")))


def forced_reply(model: Model, matcher: Any, rng: random.Random) -> list[int] | None:
    """What random weights may write, with a leaning towards an end."""
    walk, hints = Walk(matcher), [model.encode(text)[0] for text in endings(model.format)]
    while not walk.complete and len(walk.tokens) < 150:
        if walk.forced:
            walk.jump()
            continue
        bits = np.unpackbits(walk.allowed(), bitorder="little")
        if bits[model.eos]:
            return walk.tokens
        wanted = [hint for hint in hints if bits[hint]]
        walk.follow([*walk.tokens, rng.choice(wanted if wanted and rng.random() < 0.7 else np.flatnonzero(bits))])
    return walk.tokens if walk.complete else None


def endings(form: Format) -> list[str]:
    closing = (*(form.reasoning or ()), form.close, form.parameter[2], form.section[1])
    return ['"', '"}', "}", "}}", ")", *(text for text in closing if text)]


@pytest.mark.parametrize("thinks", [False, True])
def test_random_weights_write_calls_that_are_read(model: Model, thinks: bool) -> None:
    matcher = model.compiled(tools=OFFERED, choice="required", thinking=thinks)
    rng = random.Random(1)
    replies = [ids for _ in range(6) if (ids := forced_reply(model, matcher, rng))]
    assert len(replies) > 1
    for ids in replies:
        said = model.read(model.pieces([token for token in ids if token != model.eos]), thinks)
        assert said.calls and not said.content, said
        for name, text in said.calls:
            assert name in ("get_weather", "noop")
            assert name == "noop" or {"city", "days"} <= json.loads(text).keys()
        whole = "".join(model.pieces(ids))
        for token, number in model.tokens.items():
            assert ids.count(number) == whole.count(token), f"{token} is spelled in letters"


MESSAGES = [("analysis", "Need to call"), ("commentary", "I look it up. 😀")]


def test_what_openai_writes_is_read_and_what_is_forced_openai_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai = pytest.importorskip("openai_harmony", reason="openai-harmony is the vendor's own reader and writer")
    model, role = load("gpt-oss"), openai.Role.ASSISTANT
    (tmp_path / "o200k_base.tiktoken").write_bytes(o200k(model))
    monkeypatch.setenv("TIKTOKEN_ENCODINGS_BASE", str(tmp_path))
    encoding = openai.load_harmony_encoding(openai.HarmonyEncodingName.HARMONY_GPT_OSS)
    said = [openai.Message.from_role_and_content(role, text).with_channel(channel) for channel, text in MESSAGES]
    call = openai.Message.from_role_and_content(role, json.dumps(CALL[1])).with_channel("commentary")
    said.append(call.with_recipient("functions.get_weather").with_content_type("<|constrain|>json"))
    ids = encoding.render_conversation(openai.Conversation.from_messages(said))
    start = encoding.encode("<|start|>assistant", allowed_special="all")
    assert ids[:2] == start == model.encode("<|start|>assistant")
    found = model.read(model.pieces(ids[2:]))
    assert (found.reasoning, found.content) == ("Need to call", "I look it up. 😀")
    assert [(name, json.loads(text)) for name, text in found.calls] == [CALL]

    matcher, rng = model.compiled(tools=OFFERED, choice="required", thinking=True), random.Random(2)
    replies = [ids for _ in range(3) if (ids := forced_reply(model, matcher, rng))]
    assert replies
    for ids in replies:
        *_, last = encoding.parse_messages_from_completion_tokens([*ids, model.tokens["<|call|>"]], role)
        ((name, arguments),) = model.read(model.pieces(ids)).calls
        assert (last.recipient, last.channel, last.content_type) == (
            f"functions.{name}",
            "commentary",
            "<|constrain|>json",
        )
        assert last.content[0].text == arguments


def o200k(model: Model) -> bytes:
    """OpenAI's own file of the vocabulary, put together again; its checksum is in tiktoken."""
    vocabulary = json.loads(model.theirs.backend_tokenizer.to_str())["model"]["vocab"]
    rows = sorted((rank, bytes(BYTE_LEVEL[char] for char in token)) for token, rank in vocabulary.items())
    file = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in rows)
    assert hashlib.sha256(file).hexdigest() == "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
    return file


@pytest.mark.parametrize("name", ["Mistral-Nemo", "Mistral-Small-3.2", "Ministral-3"])
def test_what_mistral_writes_is_read(name: str) -> None:
    model = load(name)
    common = pytest.importorskip("mistral_common.tokens.tokenizers.mistral", reason="it is the vendor's own writer")
    file = mistral_file(VENDORS[name].package)
    calls = [CALL, ("noop", {})]
    asked = {
        "messages": [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": None, "tool_calls": [openai_call(*call) for call in calls]},
            *({"role": "tool", "content": "x", "tool_call_id": id_of(name)} for name, _ in calls),
        ],
    }
    request = common.ChatCompletionRequest.from_openai(**asked)
    ids = common.MistralTokenizer.from_file(str(file)).encode_chat_completion(request).tokens
    ids = ids[ids.index(model.tokens["[TOOL_CALLS]"]) :]
    ids = ids[: ids.index(model.eos)]
    found = model.read(model.pieces(ids))
    assert not found.content and [(name, json.loads(text)) for name, text in found.calls] == calls
    follow(model, model.compiled(tools=OFFERED, choice="required", thinking=False), ids)


def id_of(name: str) -> str:
    return f"aZ09aZ09{len(name) % 10}"


def openai_call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": id_of(name), "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
