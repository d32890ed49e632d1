"""`hexad bench jump`: what it saves to take forced tokens without a step, where answers are JSON of one schema.

The engine with and the engine without it answer the same requests in turns, in one process; the tokens must be equal.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

from hexad.config import Config
from hexad.engine.llm import LLM
from hexad.engine.setup import JUMP_FORWARD
from hexad.errors import RequestFailed
from hexad.types import RequestOutput, SamplingParams, StructuredOutputs

_LINE = {
    "type": "object",
    "properties": {
        "description": {"type": "string", "maxLength": 16},
        "unit_price_in_cents": {"type": "integer", "minimum": 0, "maximum": 9999},
        "quantity": {"type": "integer", "minimum": 1, "maximum": 99},
        "is_taxable": {"type": "boolean"},
    },
}
INVOICE = {
    "type": "object",
    "properties": {
        "invoice_number": {"type": "string", "pattern": "^INV-[0-9]{6}$"},
        "date_of_issue": {"type": "string", "format": "date"},
        "customer_name": {"type": "string", "maxLength": 16},
        "payment_method": {"enum": ["credit card", "bank transfer", "cash on delivery"]},
        "line_items": {"type": "array", "items": _LINE, "minItems": 2, "maxItems": 3},
    },
}
MAX_TOKENS = 400


def measure_jump(config: Config, num_prompts: int, repeats: int) -> str:
    """A table, and the ratios of the medians. Raises RequestFailed where the two answer differently."""
    wanted = StructuredOutputs(json=_closed(INVOICE))
    prompts = [f"Write invoice {i} as JSON: " for i in range(num_prompts)]
    params = [
        SamplingParams(temperature=1.0, seed=i, max_tokens=MAX_TOKENS, structured_outputs=wanted)
        for i in range(num_prompts)
    ]
    engines = {"with": LLM(config), "without": LLM(dataclasses.replace(config, without=JUMP_FORWARD))}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    steps, answers = dict.fromkeys(engines, 0), dict[str, list[RequestOutput]]()
    for run in range(repeats + 1):
        for name, llm in engines.items():
            before, started = llm.stats().num_steps, time.perf_counter()
            answers[name] = llm.generate(prompts, params)
            seconds[name] += [time.perf_counter() - started] if run else []  # the first is not counted
            steps[name] = llm.stats().num_steps - before
        if _tokens(answers["with"]) != _tokens(answers["without"]):
            raise RequestFailed(f"with and without {JUMP_FORWARD} the answers differ")
    tokens = sum(map(len, _tokens(answers["with"])))
    median = {name: statistics.median(each) for name, each in seconds.items()}
    rows = [
        f"{name:8} {steps[name]:6} steps {median[name]:8.3f} s {tokens / median[name]:8.1f} tokens/s"
        for name in engines
    ]
    fewer, faster = (of["without"] / of["with"] for of in (steps, median))
    ratios = (
        f"{JUMP_FORWARD}: {fewer:.2f}x fewer steps, {faster:.2f}x as fast; {tokens} tokens in {num_prompts} answers, "
        "the same with and without"
    )
    return "\n".join([*rows, ratios])


def _tokens(outputs: list[RequestOutput]) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in outputs]


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """All properties are required, and there are no others: as OpenAI's strict mode has it."""
    out = {key: _closed(each) if isinstance(each, dict) else each for key, each in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        out |= {"required": list(schema["properties"]), "additionalProperties": False}
    return out
