"""`hexad explain MODEL`: what every setting became, where it came from, and the memory plan."""

from __future__ import annotations

import argparse

from hexad.checkpoints.generation import read_generation_defaults
from hexad.cli.options import settings
from hexad.config import FIELDS, Config
from hexad.engine.frontend import sampling_fields
from hexad.engine.setup import Resolved, packed_file, resolve_settings
from hexad.kernels.load import load
from hexad.placement.memory import gib


def run(args: argparse.Namespace) -> int:
    config, origins = settings(args)
    resolved = resolve_settings(config)
    loaded = load(config.kernels, resolved.threads, config.device)
    became = _worked_out(config, resolved, loaded.ops.name)
    for group in ("model", "engine", "server"):
        print(f"{group}")
        for name, field in FIELDS.items():
            if field.metadata["group"] == group:
                value, origin = became.get(name, (getattr(config, name), ""))
                came = origins[name] + (f", {origin}" if origin else "")
                print(f"  {name:24} {_shown(name, value):28} {came}")
    if loaded.note:
        print(f"  note: {loaded.note}")
    _print_memory(resolved)
    path = packed_file(config, resolved, loaded.ops)
    when = "made at each start" if path is None else "mapped" if path.exists() else "kept after the next start"
    print(f"  {'packed weights':24} {when:28} {path or ''}")
    print(
        f"sampling defaults of the model\n  {sampling_fields(read_generation_defaults(resolved.directory)) or 'none'}"
    )
    return 0


def _worked_out(config: Config, resolved: Resolved, kernels: str) -> dict[str, tuple[object, str]]:
    """Settings that were left open: what they became, and from what."""
    became: dict[str, tuple[object, str]] = {
        "kernels": (kernels, "" if config.kernels != "auto" else "from what is built here"),
        "served_model_name": (config.model_name, "" if config.served_model_name else "from model"),
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
    return became


def _shown(name: str, value: object) -> str:
    return gib(value) if name in ("kv_memory", "model_memory") and isinstance(value, int) else str(value)


def _print_memory(resolved: Resolved) -> None:
    memory = resolved.memory
    model = resolved.model
    print("memory plan")
    for name, size, why in (
        ("available", memory.available, "what the kernel and the cgroup leave"),
        ("weights", memory.weights, f"{model.model_type}, {model.num_layers} layers, {resolved.precision}"),
        ("scratch", memory.scratch, "activations and logits of the largest step"),
        ("KV cache", memory.kv, f"{memory.num_pages} pages of {memory.page_bytes} bytes = {memory.kv_tokens} tokens"),
        ("left", memory.left, ""),
    ):
        print(f"  {name:24} {gib(size):28} {why}")
