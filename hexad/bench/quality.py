"""`hexad bench quality`: what the weight formats cost in answers, beside those of OpenVINO and llama.cpp.

The others' formats are emulated: float32 kernels on weights (embedding table included) and inputs of linears rounded to
what the format can hold, so that nothing but the format differs. Hexad's own run as they are.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

import hexad
from hexad.bench import formats
from hexad.bench.formats import HeldFormat, Rounding
from hexad.bench.run_skills import accuracy
from hexad.bench.shapes import shape_directory
from hexad.bench.skill_base import assistant
from hexad.bench.skills import SKILLS, example
from hexad.checkpoints.weights import DummyWeights, Weights
from hexad.config import Config
from hexad.engine.frontend import Frontend
from hexad.engine.llm import LLM
from hexad.engine.setup import resolve_settings
from hexad.errors import BadRequest
from hexad.kernels.native import NativeOps
from hexad.kernels.ops import KV, PAGE_SIZE, Array, Step, WeightFormat
from hexad.kernels.threads import processor
from hexad.models.build import build
from hexad.placement.sizes import packed_bytes
from hexad.testing.step import Replay
from hexad.types import SamplingParams

TEXT_TOKENS = 20_000
RANDOM_PROMPTS, RANDOM_TOKENS = 64, 8
"""Many short prompts: at random weights the positions of one prompt have nearly the same logits, and the same error."""
PARTS = ("qkv", "output", "gate_up", "down")
"""The linears of a layer, in the order in which models bind them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Emulated:
    """Formats of weights and inputs, None for exact ones."""

    linear: HeldFormat
    head: HeldFormat
    table: Rounding | None = None
    inputs: Rounding | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """A setting `dtype`, and what it does not say."""

    name: str
    dtype: str
    emulated: Emulated | None = None
    head: WeightFormat | None = None
    wide: Callable[[int, str, int], bool] = lambda layer, part, layers: False
    """Linears that are int8 whatever `dtype` says, by their layer, part and the number of layers."""

    def of(self, config: Config) -> Config:
        settings: dict[str, Any] = {"dtype": self.dtype, "packed_cache": False}
        return dataclasses.replace(config, **settings)


def _peer(name: str, linear: HeldFormat, head: HeldFormat, inputs: Rounding) -> tuple[Variant, Variant]:
    """A tied embedding table is held as the head is."""
    return (
        Variant(f"{name}, exact inputs", "float32", Emulated(linear, head, head.round)),
        Variant(f"{name}, 8-bit inputs", "float32", Emulated(linear, head, head.round, inputs)),
    )


VARIANTS = (
    *(Variant(dtype, dtype) for dtype in ("float32", "bfloat16", "int8", "int4", "int4-64", "int4-32")),
    Variant("int8, exact inputs", "float32", Emulated(formats.INT8, formats.INT8)),
    Variant("int4, exact inputs", "float32", Emulated(formats.INT4, formats.INT8)),
    *_peer("OpenVINO int8", formats.OPENVINO_INT8, formats.OPENVINO_INT8, formats.openvino_inputs),
    *_peer("OpenVINO int4", formats.OPENVINO_INT4, formats.OPENVINO_INT8, formats.openvino_inputs),
    *_peer("llama.cpp Q8_0", formats.GGML_Q8_0, formats.GGML_Q8_0, formats.ggml_q8_0),
    *_peer("llama.cpp Q4_0", formats.GGML_Q4_0, formats.GGML_Q8_0, formats.ggml_q8_0),
    Variant("int4, head too", "int4", head="int4-128"),
    Variant("int4, down int8", "int4", wide=lambda layer, part, layers: part == "down"),
    Variant("int4, attention int8", "int4", wide=lambda layer, part, layers: part in ("qkv", "output")),
    Variant("int4, first and last layer int8", "int4", wide=lambda layer, part, layers: layer in (0, layers - 1)),
)


class VariantOps(NativeOps):
    """The native kernels, with a variant's formats; counts the bits of what it packs."""

    def __init__(self, variant: Variant, threads: int, layers: int) -> None:
        super().__init__(threads)
        self._variant, self._layers, self._packed = variant, layers, 0
        self._bits = self._weights = 0.0

    @property
    def bits(self) -> float:
        """Of a weight of the layers' linears and the head, on average."""
        return self._bits / self._weights

    def pack_linear(self, weight_NK: np.ndarray, format: WeightFormat, *, leaves: int = 1) -> Any:
        layer, part = divmod(self._packed, len(PARTS))
        outputs, inputs = weight_NK.shape
        is_head = layer == self._layers
        self._packed += 1
        self._weights += outputs * inputs
        if emulated := self._variant.emulated:
            held = emulated.head if is_head else emulated.linear
            self._bits += outputs * inputs * held.bits(inputs)
            return super().pack_linear(held.round(weight_NK.astype(np.float32)), "float32", leaves=leaves)
        if is_head:
            format = self._variant.head or format
        elif self._variant.wide(layer, PARTS[part], self._layers):
            format = "int8"
        self._bits += 8 * packed_bytes(outputs, inputs, leaves, format)
        return super().pack_linear(weight_NK, format, leaves=leaves)

    def compile(self, forward: Callable[[Step, list[KV]], Array], kvs: list[KV]) -> Callable[[Step], np.ndarray]:
        """Emulated formats see every call, so nothing is recorded for them."""
        return (lambda step: forward(step, kvs)) if self._variant.emulated else super().compile(forward, kvs)

    def linear(self, x_TK: Array, weight: Any, bias_N: Array | None = None) -> Array:
        if self._variant.emulated and self._variant.emulated.inputs:
            x_TK = self._variant.emulated.inputs(np.ascontiguousarray(x_TK))
        return super().linear(x_TK, weight, bias_N)

    def embedding(self, table_VD: Array, token_ids_T: Array) -> Array:
        rows_TD = super().embedding(table_VD, token_ids_T)
        emulated = self._variant.emulated
        return emulated.table(rows_TD) if emulated and emulated.table else rows_TD


class Text(NamedTuple):
    """A conversation; the model's answer is `token_ids[start:stop]`, its end included."""

    token_ids: list[int]
    start: int
    stop: int


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """KL(float32 || variant) of the next token in nats, over positions; how often the likeliest token is the same."""

    mean: float
    max: float
    same: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    bits: float
    skills: dict[str, float]
    perplexity: float
    """Of the answers."""
    answers: Divergence
    random: Divergence


def held_out_texts(frontend: Frontend, tokens: int) -> list[Text]:
    """About `tokens` tokens of conversations that are in no training text, as many of each skill; always the same."""
    texts: list[Text] = []
    for skill in SKILLS:
        rng, wanted = random.Random(f"held-out text {skill}"), tokens // len(SKILLS)
        while wanted > 0:
            asked = example(skill, rng, held_out=True)
            talk = [*asked.messages, assistant(asked.answer)]
            question, whole = (
                frontend.tokenizer.encode(
                    frontend.render(messages, tools=asked.tools, add_generation_prompt=messages is not talk),
                    add_special_tokens=False,
                )
                for messages in (asked.messages, talk)
            )
            ends = [i for i, token in enumerate(whole) if token in frontend.generation_defaults.eos_token_ids]
            texts.append(Text(whole, len(question), ends[-1] + 1))
            wanted -= len(whole)
    return texts


def perplexity(llm: LLM, texts: Sequence[Text]) -> float:
    """Of the tokens of the answers, given what stands before them."""
    params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
    logprobs: list[float] = []
    for text, output in zip(texts, llm.generate([text.token_ids for text in texts], params), strict=True):
        assert output.prompt_logprobs is not None
        for token, scored in list(zip(text.token_ids, output.prompt_logprobs, strict=True))[text.start : text.stop]:
            assert scored is not None
            logprobs.append(scored[token].logprob)
    return math.exp(-math.fsum(logprobs) / len(logprobs))


def divergence(reference: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Divergence:
    """Of logits [positions, V]."""
    kl: list[np.ndarray] = []
    same: list[np.ndarray] = []
    for p, q in zip(map(_log_softmax, reference), map(_log_softmax, found), strict=True):
        kl.append((np.exp(p) * (p - q)).sum(axis=1))
        same.append(p.argmax(axis=1) == q.argmax(axis=1))
    every = np.concatenate(kl)
    return Divergence(mean=float(every.mean()), max=float(every.max()), same=float(np.concatenate(same).mean()))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted: np.ndarray = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_softmax: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_softmax


def logits(config: Config, variant: Variant, prompts: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Of every position, [tokens, V] for each prompt."""
    resolved = resolve_settings(variant.of(config))
    ops = VariantOps(variant, resolved.threads, resolved.model.num_layers)
    weights = DummyWeights(0) if config.load_format == "dummy" else Weights.open(resolved.directory)
    model = build(resolved.model, weights, ops, resolved.precision)
    pages = -(-max(map(len, prompts)) // PAGE_SIZE)
    replay = Replay(resolved.model, model, ops, resolved.precision.kv, num_pages=pages)
    return [replay.logits([prompt])[0] for prompt in prompts]


def measure(config: Config, shape: Config, examples: int) -> Iterator[Row]:
    """`config` is of a model with the skills, `shape` of a random one; the first variant is the reference."""
    texts = held_out_texts(Frontend.load(config, resolve_settings(config)), TEXT_TOKENS)
    vocab_size = resolve_settings(shape).model.vocab_size
    rng = random.Random(0)
    noise = [rng.choices(range(vocab_size), k=RANDOM_TOKENS) for _ in range(RANDOM_PROMPTS)]
    references: list[list[np.ndarray]] = []
    for variant in VARIANTS:
        resolved = resolve_settings(config)
        ops = VariantOps(variant, resolved.threads, resolved.model.num_layers)
        llm = LLM(variant.of(config), ops=ops)
        scored = [
            rows[text.start - 1 : text.stop - 1]
            for text, rows in zip(texts, logits(config, variant, [text.token_ids for text in texts]), strict=True)
        ]
        found = [scored, logits(shape, variant, noise)]
        references = references or found
        yield Row(
            name=variant.name,
            bits=ops.bits,
            skills={skill: accuracy(llm, skill, examples) for skill in SKILLS},
            perplexity=perplexity(llm, texts),
            answers=divergence(references[0], found[0]),
            random=divergence(references[1], found[1]),
        )


def measure_quality(config: Config, shape_name: str, examples: int, out: Path, say: Callable[[str], None]) -> str:
    """Writes quality.json and quality.md into `out`; returns the latter."""
    if examples < 1:
        raise BadRequest(f"--examples is {examples}; it must be at least 1", param="examples")
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with shape_directory(shape_name) as directory:
        shape = dataclasses.replace(config, model=str(directory), load_format="dummy", kv_memory=None)
        for row in measure(config, shape, examples):
            say(f"{row.name}: perplexity {row.perplexity:.5f}, KL {row.answers.mean:.2e}, random {row.random.mean:.2e}")
            rows.append(row)
    about = {
        "date": datetime.date.today().isoformat(),
        "hexad": hexad.__version__,
        "processor": processor(),
        "model": config.model_name,
        "shape": shape_name,
        "examples": examples,
    }
    (out / "quality.json").write_text(json.dumps({**about, "rows": msgspec.to_builtins(rows)}, indent=2))
    text = markdown(rows, ", ".join(f"{key} {value}" for key, value in about.items()))
    (out / "quality.md").write_text(text)
    return text


def markdown(rows: Sequence[Row], about: str) -> str:
    """One table: bits a weight, the skills and their mean, perplexity, KL on the answers and on random weights."""
    head = ["format", "bits", *SKILLS, "mean", "perplexity", "KL mean", "KL max", "same token", "random KL mean",
            "random KL max", "random same token"]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for row in rows:
        shares = [*row.skills.values(), sum(row.skills.values()) / len(row.skills)]
        lines.append(
            [row.name, f"{row.bits:.2f}", *(f"{100 * share:.1f}" for share in shares), f"{row.perplexity:.5f}"]
            + [cell for d in (row.answers, row.random) for cell in (f"{d.mean:.1e}", f"{d.max:.1e}", f"{d.same:.2%}")]
        )
    return f"{about}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
