"""A request fails in the same way in process and over HTTP: one class of error, its status and its words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openai
import pytest
from safetensors.numpy import load_file, save_file

from hexad import LLM, SamplingParams, errors
from hexad.errors import BadRequest, ContextTooLong, HexadError, KernelError, RequestFailed, Unsatisfiable
from hexad.types import Failure

from .running import Server, serving
from .variants import write_variant

POISON = 300
SETTINGS = {"kv_memory": "32MiB", "max_model_len": 256}


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose embedding of one token is NaN."""
    model = write_variant(tmp_path_factory.mktemp("poisoned") / "tiny-poisoned")
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][POISON] = np.nan
    save_file(weights, model / "model.safetensors")
    return model


@pytest.fixture(scope="module")
def llm(poisoned: Path) -> LLM:
    return LLM(str(poisoned), threads=1, **SETTINGS)


@pytest.fixture(scope="module")
def poisoned_server(poisoned: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "log"
    with serving(poisoned, log, "--kv-memory", "32MiB", "--max-model-len", "256") as running:
        yield running


AT_ODDS = {"structured_outputs": {"regex": "a"}, "allowed_token_ids": [9]}
FAILING: list[tuple[list[int], dict[str, Any], type[HexadError]]] = [
    ([5, 6], AT_ODDS, Unsatisfiable),
    ([5, 6], {"allowed_token_ids": [9], "stop_token_ids": [9], "min_tokens": 3}, Unsatisfiable),
    ([5, 6], {**AT_ODDS, "n": 2, "logprobs": 1}, Unsatisfiable),
    ([5, 6, POISON], {}, RequestFailed),
    ([5, POISON, 6], {"prompt_logprobs": 1}, RequestFailed),
    ([5] * 256, {}, ContextTooLong),
    ([5], {"allowed_token_ids": [99_999]}, BadRequest),
    ([5], {"structured_outputs": {"json": {"enum": []}}}, BadRequest),
]


@pytest.mark.parametrize(("prompt", "params", "kind"), FAILING)
def test_in_process_and_over_http_it_is_the_same_error(
    llm: LLM, poisoned_server: Server, prompt: list[int], params: dict[str, Any], kind: type[HexadError]
) -> None:
    with pytest.raises(HexadError) as raised:
        llm.generate([[5, 6], prompt], [SamplingParams(), msgspec.convert(params, SamplingParams)])
    error = raised.value
    assert type(error) is kind
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as answered:
            poisoned_server.client().completions.create(
                model="tiny-poisoned", prompt=prompt, stream=stream, extra_body=params
            )
        said = answered.value
        assert (said.status_code, said.code, said.param) == (error.status, error.code, error.param)
        assert str(error).removeprefix("prompt 1: ") == said.body["message"]  # type: ignore[index]


@pytest.mark.parametrize("kind", [each for each in vars(errors).values() if isinstance(each, type)])
def test_an_error_crosses_a_border_as_it_is(kind: type[HexadError]) -> None:
    crossed = msgspec.msgpack.decode(msgspec.msgpack.encode(Failure.of(kind("why", param="n", code="x"))), type=Failure)
    error = crossed.error("there: ")
    if kind is KernelError:
        assert (type(error), str(error)) == (RequestFailed, "there: KernelError: why")
    else:
        assert (type(error), str(error), error.param, error.code) == (kind, "there: why", "n", "x")


def test_a_defect_of_ours_is_a_failed_request() -> None:
    error = Failure.of(ZeroDivisionError("by 0")).error()
    assert (type(error), str(error), error.code) == (RequestFailed, "ZeroDivisionError: by 0", "request_failed")
