"""Hexad: one inference engine, any model, on the machine you have.

from hexad import LLM, SamplingParams
LLM("demo").generate("Hello", SamplingParams(max_tokens=32))[0].outputs[0].text
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hexad.engine.async_llm import AsyncLLM
    from hexad.engine.llm import LLM
    from hexad.types import CompletionOutput, Logprob, RequestOutput, SamplingParams, StructuredOutputs

__all__ = ["LLM", "AsyncLLM", "CompletionOutput", "Logprob", "RequestOutput", "SamplingParams", "StructuredOutputs"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """All is loaded when it is first named, so that `import hexad` and the CLI stay instant."""
    if name not in __all__:
        raise AttributeError(f"module 'hexad' has no attribute {name!r}")
    modules = {"LLM": "hexad.engine.llm", "AsyncLLM": "hexad.engine.async_llm"}
    return getattr(importlib.import_module(modules.get(name, "hexad.types")), name)
