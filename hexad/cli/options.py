"""Command-line flags, generated from the fields of `Config`; no default is written twice."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hexad.config import FIELDS, Config, choices, resolve
from hexad.errors import ConfigError

UNSET = object()
"""The value of a flag that was not given."""
OF_THE_SERVER = {name for name, field in FIELDS.items() if field.metadata["group"] == "server"}
OF_THE_SERVER = OF_THE_SERVER - {"keep_alive", "max_queue"} | {"model_memory", "served_model_name"}
"""What no model can have for itself."""
METAVARS = {"kv_memory": "SIZE", "model_memory": "SIZE", "keep_alive": "TIME", "api_keys": "FILE", "tls_cert": "FILE"}
METAVARS |= {"tls_key": "FILE", "without": "NAMES", "request_timeout": "SECONDS", "drain_timeout": "SECONDS"}
METAVARS |= dict.fromkeys(("max_model_len", "threads", "max_num_seqs", "max_num_batched_tokens", "max_queue"), "N")


class Named(NamedTuple):
    """A model to be run: under which name, how, and where each setting came from."""

    name: str
    config: Config
    origins: dict[str, str]
    pinned: bool


def add_settings(parser: argparse.ArgumentParser, groups: Sequence[str], show_all: bool) -> None:
    """Add MODEL, --config and a flag for each setting of `groups`; advanced ones show with --help-all."""
    several = parser.prog.rpartition(" ")[2] in ("serve", "batch", "explain")
    help = FIELDS["model"].metadata["help"] + " Of several, each may be NAME=MODEL." * several
    parser.add_argument("model", nargs="*" if several else "?", default=[] if several else UNSET, help=help)
    sections = {name: parser.add_argument_group(name) for name in groups}
    sections[groups[0]].add_argument("--config", metavar="FILE", help="YAML file of settings; flags win over it")
    for name, field in FIELDS.items():
        group = field.metadata["group"]
        if name == "model" or group not in sections or (name == "seed" and "server" not in groups):
            continue
        text = field.metadata["help"]
        if field.default not in (None, ""):
            text += f" (default {'on' if field.default is True else field.default})"
        flags: dict[str, Any] = {"default": UNSET}  # without help: Python 3.10 would add the default to it
        if isinstance(field.default, bool):
            flags["action"] = argparse.BooleanOptionalAction
        else:
            allowed = choices(name)
            flags["metavar"] = "|".join(allowed) if allowed else METAVARS.get(name, name.rsplit("_", 1)[-1].upper())
        action = sections[group].add_argument("--" + name.replace("_", "-"), **flags)
        action.help = text if show_all or not field.metadata["advanced"] else argparse.SUPPRESS


def settings(args: argparse.Namespace) -> tuple[Config, dict[str, str]]:
    """The configuration that the flags and the file ask for, of the first model, and the origin of each value."""
    first = named_models(args)[0]
    return first.config, first.origins


def named_models(args: argparse.Namespace) -> list[Named]:
    """The models of the command line, else the file's.

    In the file `model` may be a list, and `models` a section a model, by the name that clients use: settings of its
    own, which win over those beside it, and `pinned: true`. Raises ConfigError.
    """
    file, places = read_yaml(args.config) if getattr(args, "config", None) else ({}, {})
    sections = file.pop("models", None) or {}
    if not isinstance(sections, dict) or not all(isinstance(own, dict) for own in sections.values()):
        raise ConfigError(f"models in {args.config} must be `NAME: {{setting: value}}`", param="models")
    alone = file.pop("model", None)
    flags = {key: value for key, value in vars(args).items() if key in FIELDS and value is not UNSET}
    if flags.get("model"):
        named, origin = flags["model"], "command line"
    elif sections:
        named, origin = list(sections), places["models"]
    else:
        named, origin = (FIELDS["model"].default, "default") if alone is None else (alone, places["model"])
    flags.pop("model", None)
    sources = file_sources(file, places)
    found = []
    for given in map(str, named if isinstance(named, list) else [named]):
        name, model = (given, given) if given in sections else _name_and_model(given)
        own = dict(sections.get(name, {}))
        pinned = own.pop("pinned", False)
        if not isinstance(pinned, bool):
            raise ConfigError(f"pinned of {given} is {pinned!r}; it must be true or false", param="pinned")
        place = f"{places['models']}, models.{name}" if own else ""
        for key in own:
            if str(key).replace("-", "_") in OF_THE_SERVER:
                raise ConfigError(f"{place}: {key} is one for all models; set it beside models", param=str(key))
        if given != name:  # NAME=MODEL
            own.pop("model", None)
        config, origins = resolve([*sources, (origin, {"model": model}), (place, own), ("command line", flags)])
        found.append(Named(name or config.model_name, config, origins, pinned))
    if len(found) > 1 and any("served_model_name" in each for each in (file, flags)):
        raise ConfigError("served_model_name names one model, and several are given; write them as NAME=MODEL")
    return found


def _name_and_model(given: str) -> tuple[str, str]:
    """`NAME=MODEL`, or a model alone; a path may hold an equals sign behind its first slash."""
    name, equals, model = given.partition("=")
    return (name, model) if equals and name and model and "/" not in name else ("", given)


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
