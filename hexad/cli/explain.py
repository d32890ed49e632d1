"""`hexad explain MODEL`: what every setting became, where it came from, and the memory plan."""

from __future__ import annotations

import argparse

from hexad.checkpoints.generation import read_generation_defaults
from hexad.cli.options import Named, named_models
from hexad.config import FIELDS, Config
from hexad.engine.frontend import Frontend, sampling_fields
from hexad.engine.setup import Resolved, packed_file, resolve_settings
from hexad.kernels.load import load
from hexad.placement.memory import gib


def run(args: argparse.Namespace) -> int:
    models = named_models(args)
    for number, each in enumerate(models):
        if len(models) > 1:
            print("\n" * (number > 0) + f"{each.name}: {each.config.model}{', pinned' * each.pinned}")
        _explain(each, len(models))
    return 0


def _explain(named: Named, sharers: int) -> None:
    config = named.config
    resolved = resolve_settings(config, sharers=sharers)
    loaded = load(config.kernels, resolved.threads, config.device)
    became = _worked_out(config, resolved, loaded.ops.name)
    if config.served_model_name is None:
        became["served_model_name"] = (named.name, "from model")
    for group in ("model", "engine", "server"):
        print(group)
        for name, field in FIELDS.items():
            if field.metadata["group"] == group:
                value, origin = became.get(name, (getattr(config, name), ""))
                _row(name, _shown(name, value), named.origins[name] + (f", {origin}" if origin else ""))
    if loaded.note:
        print(f"  note: {loaded.note}")
    _print_memory(resolved, config.model_memory)
    path = packed_file(config, resolved, loaded.ops)
    _row("packed weights", "made at each start" if path is None else "mapped" if path.exists() else
         "kept after the next start", str(path or ""))  # fmt: skip
    print("sampling defaults of the model")
    for name, value in sampling_fields(read_generation_defaults(resolved.directory)).items():
        _row(name, str(value), "")


def _row(name: str, value: str, why: str) -> None:
    print(f"  {name:24} {value:28} {why}".rstrip())


def _worked_out(config: Config, resolved: Resolved, kernels: str) -> dict[str, tuple[object, str]]:
    """Settings that were left open: what they became, and from what."""
    became: dict[str, tuple[object, str]] = {
        "kernels": (kernels, "" if config.kernels != "auto" else "from what is built here")
    }
    if config.dtype == "auto":
        became["dtype"] = (resolved.precision.linear, f"from the checkpoint's {resolved.model.dtype}")
    if config.threads is None:
        became["threads"] = (resolved.threads, "from the machine's physical cores")
    if config.max_model_len is None:
        limit = "the model" if resolved.scheduler.max_model_len == resolved.model.max_position else "the KV cache"
        became["max_model_len"] = (resolved.scheduler.max_model_len, f"from {limit}")
    if config.kv_memory is None:
        became["kv_memory"] = (resolved.memory.kv, "from the memory plan")
    if config.tool_format == "auto":
        frontend = Frontend.load(config, resolved)
        source = "for there is no chat template" if frontend.chat_template is None else "from the chat template"
        became["tool_format"] = (frontend.format.name, source)
    return became


def _shown(name: str, value: object) -> str:
    if name in ("kv_memory", "model_memory") and isinstance(value, int):
        return gib(value)
    return "-" if value in (None, "") else str(value)


def _print_memory(resolved: Resolved, limit: int | None) -> None:
    memory, model = resolved.memory, resolved.model
    source = "model_memory" if memory.available == limit else "what the kernel and the cgroup leave"
    print("memory plan")
    for name, size, why in (
        ("available", memory.available, source),
        ("weights", memory.weights, f"{model.model_type}, {model.num_layers} layers, {resolved.precision}"),
        ("scratch", memory.scratch, "activations and logits of the largest step"),
        ("KV cache", memory.kv, f"{memory.num_pages} pages of {memory.page_bytes} bytes = {memory.kv_tokens} tokens"),
        ("left", memory.left, ""),
    ):
        _row(name, gib(size), why)
