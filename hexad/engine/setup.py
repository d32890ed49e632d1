"""From settings to an engine: plan the memory, load the weights, join scheduler and runner."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from hexad.checkpoints.config import ModelConfig
from hexad.checkpoints.generation import read_generation_defaults
from hexad.checkpoints.hub import resolve
from hexad.checkpoints.packed import MIN_BYTES, PackedFiles, PackedWeights, made_from
from hexad.checkpoints.read_config import read_model_config
from hexad.checkpoints.weights import DummyWeights, Tensors, Weights, has_weights
from hexad.config import Config
from hexad.engine.grammars import Grammars, load_vocabulary
from hexad.engine.messages import EngineInfo
from hexad.engine.runner import Runner
from hexad.errors import CheckpointError, ConfigError, HexadError
from hexad.kernels.load import Loaded, load
from hexad.kernels.ops import KV, Ops, PackingOps, WeightFormat
from hexad.kernels.precision import Precision
from hexad.kernels.threads import default_threads
from hexad.models.build import build, new_kvs
from hexad.models.names import HEAD
from hexad.placement.memory import MemoryPlan, available_memory, plan_memory
from hexad.placement.sizes import kv_bytes_per_token, num_linear_weights, scratch_bytes, weight_bytes
from hexad.scheduler.scheduler import Scheduler, SchedulerConfig
from hexad.text.tokenizer import Tokenizer

Progress = Callable[[float], None]
"""Called with the share of the weights that is loaded."""
RESERVING, SAVING = BACKGROUND_THREADS = ("kv-memory", "packed-cache")
"""What goes on beside the first answers."""
JUMP_FORWARD = "jump-forward"
"""The optimisation that is ours to leave out; the others are the kernels'."""
RESERVED_AFTER_S = 0.25
RESERVED_AT_ONCE = 64
"""Pages of KV cache."""
IDLE_NICENESS = 19

logger = logging.getLogger(__name__)


def no_progress(fraction: float) -> None:
    """For callers who show none."""


class Resolved(msgspec.Struct, frozen=True):
    """Everything that is known before a weight is read; `hexad explain` prints it."""

    directory: Path
    model: ModelConfig
    precision: Precision
    threads: int
    memory: MemoryPlan
    scheduler: SchedulerConfig


def resolve_precision(config: Config, model: ModelConfig) -> Precision:
    """What is asked for, or else the checkpoint's own; float16 runs as bfloat16."""
    own = "float32" if model.dtype == "float32" else "bfloat16"
    return Precision.of(own if config.dtype == "auto" else config.dtype, model.dtype)


def _left_out(config: Config) -> set[str]:
    return {name.strip() for name in config.without.split(",")} - {""}


def _maps_table(config: Config, model: ModelConfig, precision: Precision) -> bool:
    return model.dtype == precision.table and config.load_format != "dummy" and config.kernels != "torch"


def resolve_settings(config: Config, *, available: int | None = None, sharers: int = 1) -> Resolved:
    """For a machine with `available` bytes (default: what it has now) and `sharers` models that share what is left.

    Raises CheckpointError, ConfigError or OutOfMemory.
    """
    available = available_memory() if available is None else available
    available = min(available, config.model_memory or available)
    directory = resolve(config.model, config.revision, memory_bytes=available)
    model = read_model_config(directory)
    precision = resolve_precision(config, model)
    threads = config.threads or default_threads()
    if (config.max_model_len or 0) > model.max_position:
        raise ConfigError(
            f"max_model_len is {config.max_model_len}; {config.model} was made for at most {model.max_position} tokens",
            param="max_model_len",
        )
    memory, max_model_len = plan_memory(
        weights=weight_bytes(model, precision, mapped_table=_maps_table(config, model, precision)),
        scratch=scratch_bytes(model, config.max_num_batched_tokens),
        kv_bytes_per_token=kv_bytes_per_token(model, precision.kv),
        model_max_len=model.max_position,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        kv_memory=config.kv_memory,
        available=available,
        sharers=sharers,
    )
    limits = SchedulerConfig(
        num_pages=memory.num_pages,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_model_len=max_model_len,
        prefix_caching=config.prefix_caching,
    )
    return Resolved(directory, model, precision, threads, memory, limits)


class Opened(NamedTuple):
    """What there is before a model is built: weights that a thread may still read into memory."""

    kernels: Loaded
    weights: Tensors
    since: float


def open_weights(config: Config, resolved: Resolved, ops: Ops | None = None) -> Opened:
    """`ops` stands in for the kernel set that the settings name. Raises CheckpointError."""
    started = time.perf_counter()
    without = sorted(_left_out(config) - {JUMP_FORWARD})
    loaded = Loaded(ops, "") if ops else load(config.kernels, resolved.threads, config.device, without)
    return Opened(loaded, _open_weights(config, resolved, loaded.ops), started)


def build_engine(
    config: Config, resolved: Resolved, opened: Opened, progress: Progress
) -> tuple[Scheduler, Runner, EngineInfo]:
    """Bind the weights and allocate the pages.

    Raises CheckpointError for a weight that is missing or left over.
    """
    loaded, weights, started = opened
    # A rotary table no longer than needed.
    model_config = msgspec.structs.replace(resolved.model, max_position=resolved.scheduler.max_model_len)
    total = num_linear_weights(model_config)
    model = build(model_config, _Counted(weights, total, progress), loaded.ops, resolved.precision)
    if isinstance(weights, PackedWeights) and not weights.sound():
        model = build(model_config, _Counted(weights, total, progress), loaded.ops, resolved.precision)
    spare = {HEAD} if model_config.tie_word_embeddings else set()  # saved by some, used by none
    if left := sorted(set(weights.unused()) - spare):
        raise CheckpointError(
            f"{resolved.directory} holds {len(left)} tensors that a {model_config.model_type} model does not use, "
            f"such as {left[0]}; is its config.json the right one?"
        )
    kvs = new_kvs(model_config, loaded.ops, resolved.memory.num_pages, resolved.precision.kv)
    if config.kv_memory is not None:  # what is asked for by size is meant to be used
        reserve = (loaded.ops, kvs, resolved.memory.num_pages)
        threading.Thread(target=_reserve, args=reserve, name=RESERVING).start()
    info = EngineInfo(
        kernels=loaded.ops.name,
        kernels_note=loaded.note,
        threads=resolved.threads,
        precision=resolved.precision,
        max_model_len=resolved.scheduler.max_model_len,
        memory=resolved.memory,
        weights=_keep_packed(weights),
        load_seconds=time.perf_counter() - started,
    )
    eos = read_generation_defaults(resolved.directory).eos_token_ids
    tokenizer = tokenizer_directory(config, resolved)
    grammars = Grammars(
        lambda: load_vocabulary(Tokenizer.open(tokenizer), eos),
        JUMP_FORWARD not in _left_out(config),
        config.max_num_seqs,
    )
    runner = Runner(loaded.ops, loaded.ops.compile(model.forward, kvs), kvs, grammars)
    return Scheduler(resolved.scheduler), runner, info


def tokenizer_directory(config: Config, resolved: Resolved) -> Path | None:
    """None: a model of random weights that comes without a tokenizer."""
    is_bare = config.load_format == "dummy" and not (resolved.directory / "tokenizer.json").exists()
    return None if is_bare else resolved.directory


def packed_file(config: Config, resolved: Resolved, ops: Ops) -> Path | None:
    """Where the packed weights are kept, or will be after a start; None where they are not."""
    if config.load_format == "dummy" or not isinstance(ops, PackingOps) or not has_weights(resolved.directory):
        return None
    origin = _origin(config, resolved, ops, Weights.open(resolved.directory))
    return None if origin is None else PackedFiles().path(origin)


def _open_weights(config: Config, resolved: Resolved, ops: Ops) -> Tensors:
    if config.load_format == "dummy":
        return DummyWeights(seed=0)
    weights = Weights.open(resolved.directory)
    if not isinstance(ops, PackingOps) or (origin := _origin(config, resolved, ops, weights)) is None:
        return weights
    return PackedWeights(weights, ops, PackedFiles(), origin)


def _origin(config: Config, resolved: Resolved, ops: PackingOps, weights: Weights) -> bytes | None:
    if not config.packed_cache or resolved.memory.weights < MIN_BYTES:
        return None
    return made_from(weights.paths, resolved.model, resolved.precision, ops.layout)


def _keep_packed(weights: Tensors) -> str:
    """Write what was packed for the next start, beside all else. Returns how the weights came, for people."""
    if not isinstance(weights, PackedWeights):
        return "packed"
    if weights.mapped:
        return f"mapped from {weights.path}" + (
            "" if weights.mapped.locked else ", not locked in memory (see ulimit -l),"
        )
    if weights.refused:
        logger.warning("hexad: the packed weights cannot be used, and are made again: %s", weights.refused)
    threading.Thread(target=_save, args=(weights,), name=SAVING).start()
    return f"packed, to be kept in {weights.path}"


def _reserve(ops: Ops, kvs: list[KV], num_pages: int) -> None:
    """Touching memory for the first time is slow (milliseconds a huge page on a virtual machine); do it beside.

    But not beside the first token: who waits for that has use for all cores.
    """
    threading.main_thread().join(RESERVED_AFTER_S)
    for first in range(0, num_pages, RESERVED_AT_ONCE):
        for kv in kvs:
            if not threading.main_thread().is_alive():  # the interpreter waits for this thread
                return
            ops.reserve_pages(kv, first, min(num_pages, first + RESERVED_AT_ONCE))


def _save(weights: PackedWeights) -> None:
    if sys.platform == "linux":  # where niceness is a thread's own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IDLE_NICENESS)
    try:
        weights.save()
    except (OSError, HexadError) as error:
        logger.warning("hexad: the packed weights are not kept for the next start (--no-packed-cache): %s", error)


class _Counted(Tensors):
    """Weights that report how far the packing of linears has come."""

    def __init__(self, weights: Tensors, total: int, progress: Progress) -> None:
        self._weights, self._total, self._progress = weights, total, progress
        self._packed = 0

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return self._weights.take(name, shape)

    def pack(self, ops: Ops, outputs: Mapping[str, int], inputs: int, format: WeightFormat, leaves: int) -> Any:
        packed = self._weights.pack(ops, outputs, inputs, format, leaves)
        self._packed += sum(outputs.values()) * inputs
        self._progress(self._packed / self._total)
        return packed
