"""Every setting, once: the field is the default, its documentation the `--help` text, the
YAML key and the reference page.

`resolve` merges sources and remembers where each value came from. Settings whose default is
None are worked out from the model and the machine; `hexad explain` shows what they became.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal

from hexad.errors import ConfigError


def _setting(group: str, default: Any, help: str, *, advanced: bool = False) -> Any:
    return field(default=default, metadata={"help": help, "group": group, "advanced": advanced})


_model, _engine, _server = (partial(_setting, group) for group in ("model", "engine", "server"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    model: str = _model("demo", "Directory, hub id, or `demo` for the built-in model.")
    revision: str | None = _model(None, "Branch, tag or commit on the hub.", advanced=True)
    served_model_name: str | None = _model(
        None, "Name that clients use; default: the last part of the model's name.", advanced=True
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4", "int4-64", "int4-32"] = _model(
        "auto",
        "Of weights and KV cache; auto keeps the checkpoint's (float16 becomes bfloat16). int8 and int4 (a scale for "
        "each 128 weights, or 64, or 32) are rounded at load; the head is int8, the KV cache bfloat16.",
    )
    load_format: Literal["auto", "dummy"] = _model(
        "auto",
        "dummy: random weights (and a tokenizer of bytes) from config.json alone, for benchmarks.",
        advanced=True,
    )
    packed_cache: bool = _model(
        True,
        "Keep large weights as the kernels want them, under ~/.cache/hexad/packed (or XDG_CACHE_HOME), for the next "
        "start.",
        advanced=True,
    )
    max_model_len: int | None = _model(None, "Most tokens of prompt and answer together; default: the model's limit.")
    tool_format: Literal[
        "auto", "plain", "hermes", "llama3", "mistral", "mistral-list", "mistral-nemo", "deepseek", "deepseek-v3.1",
        "harmony", "pythonic", "lfm2", "granite", "nemotron", "kimi", "qwen3-coder", "seed-oss", "glm", "minimax",
    ] = _model(
        "auto", "How the model writes reasoning and tool calls; auto: told by its chat template.", advanced=True
    )  # fmt: skip
    kernels: Literal["auto", "native", "reference", "torch"] = _engine(
        "auto", "Kernel set; auto: native where it is built.", advanced=True
    )
    device: str = _engine("cpu", "Device of the torch kernels.", advanced=True)
    without: str = _engine(
        "",
        "Optimisations to leave out, to measure their worth, separated by commas: jump-forward, or names of the native "
        "kernels'.",
        advanced=True,
    )
    threads: int | None = _engine(None, "Kernel threads; default: one a physical core.")
    max_num_seqs: int = _engine(64, "Most sequences that run at once.")
    max_num_batched_tokens: int = _engine(
        256, "Token budget of a step; smaller: steadier streams, larger: faster prompts.", advanced=True
    )
    kv_memory: int | None = _engine(None, "KV cache size, such as 4GiB; default: planned from free memory.")
    model_memory: int | None = _engine(
        None,
        "Memory of all loaded models, such as 12GiB; the least recently used is unloaded when another does not fit. "
        "Default: what the machine has free at the start.",
        advanced=True,
    )
    prefix_caching: bool = _engine(True, "Reuse the KV of equal prefixes across requests.", advanced=True)
    seed: int | None = _engine(None, "Makes requests without a seed repeatable, in order of arrival.", advanced=True)
    host: str = _server("127.0.0.1", "Address to listen on, or unix:/path.sock.")
    port: int = _server(8000, "Port to listen on; 0 picks a free one.")
    keep_alive: float | None = _server(None, "Unload a model that was idle this long, such as 10m; default: never.")
    max_queue: int = _server(1024, "Requests that may wait; one more is answered 429.", advanced=True)
    request_timeout: float | None = _server(
        None,
        "Time that a request may take, such as 5m, its wait included; a client may ask for less by X-Request-Timeout. "
        "Default: no limit.",
        advanced=True,
    )
    api_keys: str | None = _server(None, "File of NAME:KEY or NAME:KEY:admin a line; default: nobody needs a key.")
    allowed_origins: str = _server(
        "", "Web pages that may call the server, such as https://chat.example, by commas; * for all.", advanced=True
    )
    allowed_hosts: str = _server(
        "",
        "Names that the server is called by (the Host header), by commas; * for any. Default: its local names on "
        "loopback, any elsewhere.",
        advanced=True,
    )
    tls_cert: str | None = _server(None, "PEM file of the certificate chain, for https.", advanced=True)
    tls_key: str | None = _server(None, "PEM file of its private key.", advanced=True)
    log_format: Literal["text", "json"] = _server("text", "Of the log on stderr.", advanced=True)
    drain_timeout: float = _server(30.0, "Time that running requests get after SIGTERM, such as 1m.", advanced=True)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("max_model_len", 2, 2**24),
            ("threads", 1, 1024),
            ("max_num_seqs", 1, 4096),
            ("max_num_batched_tokens", 1, 2**20),
            ("kv_memory", 1, 2**50),
            ("model_memory", 1, 2**50),
            ("keep_alive", 0, 2**31),
            ("port", 0, 65535),
            ("max_queue", 1, 2**20),
            ("request_timeout", 0.001, 86400),
            ("drain_timeout", 0, 86400),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} is {value}; it must be between {low} and {high}", param=name)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("one of tls_cert and tls_key is given; give both, or neither", param="tls_cert")
        for name, pattern, wanted in (
            ("allowed_origins", r"null|[a-zA-Z][\w.+-]*://[^\s/]+", "as https://NAME or https://NAME:PORT"),
            ("allowed_hosts", r"[\w.-]+|\[[0-9A-Fa-f:.]+\]", "as NAME, without a port"),
        ):
            for word in filter(None, map(str.strip, getattr(self, name).split(","))):
                if word != "*" and not re.fullmatch(pattern, word, re.ASCII):
                    raise ConfigError(f"{name} holds {word[:100]!r}; write each {wanted}, or * for all", param=name)
        if self.max_num_seqs > self.max_num_batched_tokens:
            raise ConfigError(
                f"max_num_seqs is {self.max_num_seqs}, above max_num_batched_tokens "
                f"{self.max_num_batched_tokens}; every running sequence needs a token of each step's budget",
                param="max_num_seqs",
            )

    @property
    def model_name(self) -> str:
        """What the model is called on the wire."""
        return self.served_model_name or self.model.rstrip("/").rsplit("/", 1)[-1]


_HINTS: Mapping[str, Any] = typing.get_type_hints(Config)
FIELDS = {f.name: f for f in fields(Config)}


def choices(name: str) -> tuple[str, ...] | None:
    """The allowed words of a Literal setting."""
    hint = _HINTS[name]
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else None


def parse_bytes(text: str) -> int:
    """`4GiB`, `512MB`, `1000000` -> bytes. Raises ConfigError."""
    units = {"": 1, "B": 1, "K": 2**10, "KB": 10**3, "KIB": 2**10, "M": 2**20, "MB": 10**6, "MIB": 2**20}
    units |= {"G": 2**30, "GB": 10**9, "GIB": 2**30, "T": 2**40, "TB": 10**12, "TIB": 2**40}
    number = text.strip().rstrip("BbIiKkMmGgTt ")
    unit = text.strip()[len(number) :].strip().upper()
    try:
        return int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError):
        raise ConfigError(f"{text!r} is not a size; write it as 4GiB, 512MiB or a number of bytes") from None


def parse_seconds(text: str) -> float:
    """`90`, `500ms`, `10m`, `1h30m` -> seconds, as Go writes durations. Raises ConfigError."""
    units = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    parts = re.fullmatch(r"(-?)((?:[0-9]+(?:\.[0-9]*)?(?:ms|s|m|h))+|[0-9]+(?:\.[0-9]*)?)", text.strip())
    if parts is None:
        raise ConfigError(f"{text[:60]!r} is not a duration; write it as 10m, 1h30m or a number of seconds")
    seconds = sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h|)", parts[2]))
    return -seconds if parts[1] else seconds


def coerce(name: str, value: Any) -> Any:
    """`value`, from a command line or YAML, as the type of setting `name`. Raises ConfigError."""
    hint = _HINTS[name]
    if allowed := choices(name):
        if value not in allowed:
            raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}", param=name)
        return value
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    kind = next(k for k in kinds if k is not type(None))
    try:
        if value is None:
            raise ValueError
        if name in ("kv_memory", "model_memory") and isinstance(value, str):
            return parse_bytes(value)
        if name in ("keep_alive", "request_timeout", "drain_timeout") and isinstance(value, str):
            return parse_seconds(value)
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if isinstance(value, bool) or not isinstance(value, (str, *{int: (int,), float: (int, float), str: ()}[kind])):
            raise ValueError
        return kind(value)
    except (ValueError, TypeError, KeyError):
        wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a text (in quotes)"}[kind]
        raise ConfigError(f"{name} is {value!r}; it must be {wanted}", param=name) from None


def resolve(sources: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[Config, dict[str, str]]:
    """Merge (origin, values) pairs, later ones winning, over the defaults.

    Returns the configuration and the origin of every setting. Raises ConfigError for an
    unknown key (with the nearest known one) or a value that does not fit.
    """
    values: dict[str, Any] = {}
    origins = dict.fromkeys(FIELDS, "default")
    for origin, given in sources:
        for key, value in given.items():
            name = str(key).replace("-", "_")
            if name not in FIELDS:
                near = difflib.get_close_matches(name, FIELDS, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ConfigError(f"unknown setting {key!r} in {origin}{hint}", param=str(key))
            values[name] = coerce(name, value)
            origins[name] = origin
    return Config(**values), origins
