"""The official `openai` client against a running server."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.server.conftest import MAX_MODEL_LEN
from tests.server.running import Server

MODEL = "tiny-chat"
PROMPT = "The lighthouse keeper wrote"
MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.client()


def test_models(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == client.models.retrieve(MODEL).id == MODEL
    assert model.model_extra is not None and model.model_extra["max_model_len"] == MAX_MODEL_LEN
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="gpt-9", prompt=PROMPT)
    assert refused.value.code == "model_not_found" and refused.value.param == "model"


@pytest.mark.parametrize("n", [1, 3])
def test_a_completion_streams_what_it_answers(client: OpenAI, n: int) -> None:
    given: Any = {"model": MODEL, "prompt": PROMPT, "max_tokens": 40, "seed": 5, "n": n}
    answer = client.completions.create(**given)
    texts, reasons = [""] * n, [None] * n
    usages = []
    for chunk in client.completions.create(**given, stream=True, stream_options={"include_usage": True}):
        usages.append(chunk.usage)
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in answer.choices]
    assert reasons == [choice.finish_reason for choice in answer.choices] and set(reasons) <= {"length", "stop"}
    assert usages[:-1] == [None] * (len(usages) - 1)
    assert usages[-1] is not None and answer.usage is not None
    assert usages[-1].completion_tokens == answer.usage.completion_tokens > 0
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens == answer.usage.total_tokens
    assert len(set(texts)) == n


def test_a_chat_streams_what_it_answers(client: OpenAI) -> None:
    given: Any = {"model": MODEL, "messages": MESSAGES, "max_completion_tokens": 40, "seed": 6, "n": 2}
    answer = client.chat.completions.create(**given)
    chunks = list(client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True}))
    opening = [chunk.choices[0] for chunk in chunks[:2]]
    assert [(choice.index, choice.delta.role, choice.delta.content) for choice in opening] == [
        (0, "assistant", ""),
        (1, "assistant", ""),
    ]
    texts = ["", ""]
    for chunk in chunks[2:-1]:
        (choice,) = chunk.choices
        assert choice.delta.role is None
        texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in answer.choices]
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and answer.usage is not None
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].id.startswith("chatcmpl-")


def test_a_chat_without_max_tokens_runs_to_the_end_of_the_context(client: OpenAI) -> None:
    long = [{"role": "user", "content": "lighthouse " * 450}]
    answer = client.chat.completions.create(
        model=MODEL,
        messages=long,
        temperature=0,
        extra_body={"ignore_eos": True},  # type: ignore[arg-type]
    )
    assert answer.usage is not None and answer.usage.total_tokens == MAX_MODEL_LEN
    assert answer.choices[0].finish_reason == "length"


def test_several_prompts_and_token_ids(client: OpenAI, server: Server) -> None:
    prompts = ["One", "Two and more", "Three"]
    ids = [server.post("/tokenize", {"prompt": prompt}).json()["tokens"] for prompt in prompts]
    given: Any = {"model": MODEL, "max_tokens": 12, "temperature": 0}
    solo = [client.completions.create(prompt=prompt, **given).choices[0].text for prompt in prompts]
    for form in (prompts, ids):
        choices = client.completions.create(prompt=form, n=2, **given).choices
        assert [choice.index for choice in choices] == list(range(6))
        assert [choice.text for choice in choices] == [text for text in solo for _ in range(2)]
    assert client.completions.create(prompt=ids[1], **given).choices[0].text == solo[1]
    streamed = [""] * 6
    for chunk in client.completions.create(prompt=prompts, n=2, stream=True, **given):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [text for text in solo for _ in range(2)]


def test_seed(client: OpenAI) -> None:
    def sampled(seed: int, **more: Any) -> list[str]:
        answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, seed=seed, **more)
        return [choice.text for choice in answer.choices]

    assert sampled(1) == sampled(1) != sampled(2)
    assert sampled(1, n=3) == sampled(1) + sampled(2) + sampled(3), "choice j draws its noise from seed + j"


def test_stop(client: OpenAI) -> None:
    given: Any = {
        "model": MODEL,
        "prompt": PROMPT,
        "max_tokens": 40,
        "temperature": 0,
        "extra_body": {"ignore_eos": True},
    }
    whole = client.completions.create(**given).choices[0].text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    (choice,) = client.completions.create(**given, stop=stop).choices
    assert choice.text == whole[: whole.index(stop)]
    assert choice.finish_reason == "stop" and choice.model_extra is not None
    assert choice.model_extra["stop_reason"] == stop
    streamed = "".join(c.choices[0].text for c in client.completions.create(**given, stop=["never", stop], stream=True))
    assert streamed == choice.text


def test_logprobs_of_a_completion(client: OpenAI) -> None:
    given: Any = {"model": MODEL, "prompt": PROMPT, "max_tokens": 20, "temperature": 0, "logprobs": 3}
    (choice,) = client.completions.create(**given, extra_body={"ignore_eos": True}).choices
    found = choice.logprobs
    assert found is not None and found.tokens and found.token_logprobs and found.top_logprobs and found.text_offset
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == len(found.text_offset) == 20
    assert found.text_offset == [sum(map(len, found.tokens[:i])) for i in range(20)]
    for own, top in zip(found.token_logprobs, found.top_logprobs, strict=True):
        assert own == max(top.values()) <= 0, "greedy takes the most likely token"
        assert list(top.values()) == sorted(top.values(), reverse=True)
    chunks = list(client.completions.create(**given, stream=True, extra_body={"ignore_eos": True}))
    pieces = [chunk.choices[0].logprobs for chunk in chunks]
    assert [token for piece in pieces if piece for token in piece.tokens or []] == found.tokens
    assert [offset for piece in pieces if piece for offset in piece.text_offset or []] == found.text_offset


def test_logprobs_of_a_chat(client: OpenAI) -> None:
    given: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": 20, "temperature": 0}
    asked: Any = given | {"logprobs": True, "top_logprobs": 4, "extra_body": {"ignore_eos": True}}
    (choice,) = client.chat.completions.create(**asked).choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    content = choice.logprobs.content
    assert len(content) == 20
    spelled = b"".join(bytes(token.bytes or []) for token in content)
    assert spelled.decode("utf-8", "replace") == choice.message.content
    for token in content:
        assert len(token.top_logprobs) == 4 and token.top_logprobs[0].token == token.token
        assert [top.logprob for top in token.top_logprobs] == sorted(
            (t.logprob for t in token.top_logprobs), reverse=True
        )
    streamed = [
        token.logprob
        for chunk in client.chat.completions.create(**asked, stream=True)
        for token in (chunk.choices[0].logprobs and chunk.choices[0].logprobs.content) or []
    ]
    assert streamed == [token.logprob for token in content]
    assert client.chat.completions.create(**given).choices[0].logprobs is None


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_echo_scores_a_prompt(client: OpenAI, server: Server, max_tokens: int) -> None:
    """The request that lm-evaluation-harness sends."""
    ids = server.post("/tokenize", {"prompt": PROMPT}).json()["tokens"]
    answer = client.completions.create(
        model=MODEL, prompt=ids, max_tokens=max_tokens, echo=True, logprobs=1, temperature=0
    )
    (choice,) = answer.choices
    found = choice.logprobs
    assert choice.text.startswith(PROMPT) and found is not None and found.token_logprobs and found.tokens
    assert len(found.tokens) == len(ids) + max_tokens
    assert found.token_logprobs[0] is None and all(value <= 0 for value in found.token_logprobs[1:])
    assert answer.usage is not None and answer.usage.completion_tokens == max_tokens
    one_more = client.completions.create(
        model=MODEL,
        prompt=ids[:-1],
        max_tokens=1,
        logprobs=1,
        temperature=0,
        extra_body={"allowed_token_ids": [ids[-1]]},
    )
    scored = one_more.choices[0].logprobs
    assert (
        scored is not None and scored.token_logprobs and found.token_logprobs[len(ids) - 1] == scored.token_logprobs[0]
    )


def test_what_vllm_users_send_in_extra_body(client: OpenAI) -> None:
    def tokens(**extra: Any) -> list[int]:
        body = {"ignore_eos": True, "return_token_ids": True} | extra
        answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=16, seed=3, extra_body=body)
        assert answer.choices[0].model_extra is not None
        found: list[int] = answer.choices[0].model_extra["token_ids"]
        return found

    free = tokens()
    assert len(free) == 16 and free == tokens(priority=-5, cache_salt="a", user="me", metadata={"a": "b"})
    greedy = tokens(temperature=0)
    assert tokens(top_k=1) == tokens(min_p=1.0) == tokens(top_p=1e-6) == greedy
    assert set(tokens(allowed_token_ids=[7, 8, 9])) <= {7, 8, 9}
    assert set(tokens(logit_bias={"11": 100})) == {11}
    assert len(set(tokens(repetition_penalty=50.0, temperature=0))) == 16
    assert tokens(stop_token_ids=[greedy[5]], temperature=0) == greedy[: greedy.index(greedy[5]) + 1]
    assert len(tokens(stop_token_ids=[greedy[0]], temperature=0, min_tokens=4)) >= 4


async def _streamed(client: AsyncOpenAI, seed: int, gate: asyncio.Semaphore) -> str:
    async with gate:
        stream = await client.completions.create(
            model=MODEL, prompt=f"{PROMPT} {seed % 7}", max_tokens=24, seed=seed, stream=True, temperature=1
        )
        return "".join([chunk.choices[0].text async for chunk in stream])


def test_64_streams_at_once_equal_their_solo_runs(server: Server) -> None:
    async def answers(at_once: int) -> list[str]:
        gate = asyncio.Semaphore(at_once)
        async with server.async_client() as client:
            return await asyncio.gather(*(_streamed(client, seed, gate) for seed in range(64)))

    together = asyncio.run(answers(64))
    assert asyncio.run(answers(1)) == together
    assert len(set(together)) == 64


def test_a_disconnect_in_the_middle_frees_the_request(client: OpenAI, server: Server) -> None:
    def begun() -> openai.Stream[openai.types.Completion]:
        stream = client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=1900, stream=True, n=32, seed=1,
            extra_body={"ignore_eos": True}, extra_headers={"x-request-id": "openai-leaves"},
        )  # fmt: skip
        for _, _chunk in zip(range(3), stream, strict=False):
            pass
        return stream

    with server.caught(begun) as stream:
        assert server.metrics()["hexad:num_requests_running"] == 32
        stream.close()
        assert server.says("request_id=openai-leaves .*client_disconnected").count("abort") == 32
    server.until_idle()


def test_a_prompt_too_long_is_refused_with_the_limit(client: OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=str(MAX_MODEL_LEN)) as refused:
            client.completions.create(model=MODEL, prompt=[5] * (MAX_MODEL_LEN + 1), stream=stream)
        assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match=str(MAX_MODEL_LEN)):
        client.completions.create(model=MODEL, prompt="x", max_tokens=MAX_MODEL_LEN)


@pytest.mark.parametrize("stream", [False, True])
def test_parameters_that_leave_no_token_are_refused(client: OpenAI, stream: bool) -> None:
    at_odds = {"structured_outputs": {"regex": "a"}, "allowed_token_ids": [9]}
    with pytest.raises(openai.BadRequestError, match="no token is left to choose") as refused:
        client.completions.create(model=MODEL, prompt=PROMPT, stream=stream, extra_body=at_odds)
    assert refused.value.code == "unsatisfiable"


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"temperature": "hot"}, "temperature", "number"),
    ({"temperature": -1}, "temperature", r"\[0.0, 100.0\]"),
    ({"n": True}, "n", "integer"),
    ({"n": 10**9}, "n", "128"),
    ({"max_tokens": 0}, "max_tokens", "1"),
    ({"max_tokens": 2**63}, "max_tokens", "2147483647"),
    ({"stop": [1]}, "stop.0", "string"),
    ({"stop": [""]}, "stop", "empty"),
    ({"logit_bias": {"x": 1}}, "logit_bias.x", "integer"),
    ({"logit_bias": {"99999": 1}}, "logit_bias", "3071"),
    ({"logprobs": 10**6}, "logprobs", "64"),
    ({"prompt": None}, "prompt", "string"),
    ({"prompt": []}, "prompt", "list"),
    ({"prompt": [1, "a"]}, "prompt", "list"),
    ({"prompt": [2**70]}, "prompt", "3071"),
    ({"prompt": [-1]}, "prompt", "3071"),
    ({"prompt": ""}, "prompt", "empty"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
    ({"suffix": "x"}, "suffix", "fill in the middle"),
    ({"best_of": 1, "n": 2}, "best_of", "n"),
    ({"temprature": 1}, "temprature", "temperature"),
    ({"use_beam_search": True}, "use_beam_search", "unknown"),
    ({"min_tokens": 99, "max_tokens": 5}, "min_tokens", "max_tokens"),
    ({"seed": 2**64}, "seed", "9223372036854775807"),
]


@pytest.mark.parametrize(("given", "param", "says"), WRONG, ids=[str(case[0])[:40] for case in WRONG])
def test_what_is_wrong_is_named(client: OpenAI, given: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says) as refused:
        client.completions.create(model=MODEL, prompt=PROMPT, extra_body=given)
    assert refused.value.param == param and refused.value.type == "invalid_request_error"


TOOL = {"type": "function", "function": {"name": "f"}}
ALLOWED = {"mode": "auto", "tools": [TOOL]}
WRONG_CHATS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages.0"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages.0.content.0.type",
    ),
    ({"tool_choice": "required"}, "tool_choice"),
    # A union's branch and a field of it may have the same name.
    ({"tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED, "tools": []}}, "tool_choice.tools"),
    ({"tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED | {"tools": [TOOL | {"x": 1}]}, "tools": []}},
     "tool_choice.allowed_tools.tools.0.x"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}, "x": 1}}, "response_format.x"),
    ({"tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
    ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "response_format"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "param"), WRONG_CHATS, ids=[case[1] for case in WRONG_CHATS])
def test_what_is_wrong_in_a_chat_is_named(client: OpenAI, given: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_body=given)
    assert refused.value.param == param


@pytest.mark.parametrize("max_tokens", [1, 2, 3])
def test_a_streamed_chat_ends_with_a_chunk_of_its_own(client: OpenAI, max_tokens: int) -> None:
    """As OpenAI's does, also where the last text comes with the ending: the clients' helpers rely on it."""
    asked: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": max_tokens, "logprobs": True}
    texts = 0
    for seed in range(5):
        given = asked | {"seed": seed}
        whole = client.chat.completions.create(**given).choices[0]
        *choices, ending = [chunk.choices[0] for chunk in client.chat.completions.create(**given, stream=True)]
        assert ending.finish_reason == whole.finish_reason and not ending.delta.model_dump(exclude_unset=True)
        assert {choice.finish_reason for choice in choices} == {None}
        assert "".join(choice.delta.content or "" for choice in choices) == whole.message.content
        found = [each for choice in [*choices, ending] if choice.logprobs for each in choice.logprobs.content or ()]
        assert whole.logprobs is not None and found == whole.logprobs.content
        texts += bool(whole.message.content)
    assert texts
