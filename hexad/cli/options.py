"""Command-line flags, generated from the fields of `Config`; no default is written twice."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
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
    sources = file_sources(*read_yaml(args.config)) if getattr(args, "config", None) else []
    given = {name: value for name, value in vars(args).items() if name in FIELDS and value is not UNSET}
    sources.append(("command line", given))
    return resolve(sources)


def read_yaml(path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The `setting: value` lines of a file, and where each stands. Raises ConfigError."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            loader = yaml.SafeLoader(file)
            node = loader.get_single_node()
            content = loader.construct_document(node) if node is not None else None
    except OSError as error:
        raise ConfigError(f"cannot read --config {path}: {error.strerror}", param="config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} is not YAML: {error}", param="config") from None
    if not isinstance(content, dict) or node is None:
        raise ConfigError(f"--config {path} must hold `setting: value` lines", param="config")
    places: dict[str, str] = {}
    for key, _ in node.value:
        name = str(loader.construct_object(key))
        place = f"{path}, line {key.start_mark.line + 1}"
        if name in places:
            raise ConfigError(f"{place}: {name} is given twice", param=name)
        places[name] = place
    return content, places


def file_sources(content: Mapping[str, Any], places: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """What a file sets, for `resolve`: each setting with its line for an origin."""
    return [(places[str(key)], {key: value}) for key, value in content.items()]
