"""Command-line flags, generated from the fields of `Config`; no default is written twice."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from hexad.config import FIELDS, Config, choices, resolve
from hexad.errors import ConfigError

UNSET = object()
"""The value of a flag that was not given."""


def add_settings(parser: argparse.ArgumentParser, groups: Sequence[str], show_all: bool) -> None:
    """Add MODEL, --config and a flag for each setting of `groups`; advanced ones show with --help-all."""
    several = parser.prog.rpartition(" ")[2] in ("serve", "batch")
    help = FIELDS["model"].metadata["help"] + " Of several, each may be NAME=MODEL." * several
    parser.add_argument("model", nargs="*" if several else "?", default=[] if several else UNSET, help=help)
    sections = {name: parser.add_argument_group(name) for name in groups}
    sections[groups[0]].add_argument("--config", metavar="FILE", help="YAML file of settings; flags win over it")
    for name, field in FIELDS.items():
        group = field.metadata["group"]
        if name == "model" or group not in sections or (name == "seed" and "server" not in groups):
            continue
        text = field.metadata["help"]
        if field.default is not None:
            text += f" (default {field.default})"
        hidden = field.metadata["advanced"] and not show_all
        flags: dict[str, Any] = {"default": UNSET, "help": argparse.SUPPRESS if hidden else text}
        if isinstance(field.default, bool):
            flags["action"] = argparse.BooleanOptionalAction
        else:
            allowed = choices(name)
            flags["metavar"] = "|".join(allowed) if allowed else name.rsplit("_", 1)[-1].upper()
        sections[group].add_argument("--" + name.replace("_", "-"), **flags)


def settings(args: argparse.Namespace) -> tuple[Config, dict[str, str]]:
    """The configuration that the flags and the file ask for, and the origin of each value."""
    sources: list[tuple[str, dict[str, Any]]] = []
    if getattr(args, "config", None):
        sources.append((args.config, read_yaml(args.config)))
    given = {name: value for name, value in vars(args).items() if name in FIELDS and value is not UNSET}
    sources.append(("command line", given))
    return resolve(sources)


def read_yaml(path: str) -> dict[str, Any]:
    """The `setting: value` lines of a file. Raises ConfigError."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except OSError as error:
        raise ConfigError(f"cannot read --config {path}: {error.strerror}", param="config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} is not YAML: {error}", param="config") from None
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path} must hold `setting: value` lines", param="config")
    return content
