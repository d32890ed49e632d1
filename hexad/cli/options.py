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
METAVARS |= {"tls_key": "FILE", "without": "NAMES", "request_timeout": "TIME", "drain_timeout": "TIME"}
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
    sections = file.pop("models", {})
    if not isinstance(sections, dict) or any((type(name), type(own)) != (str, dict) for name, own in sections.items()):
        raise ConfigError(f"models in {args.config} must be `NAME: {{setting: value}}`, NAME a text", param="models")
    alone = file.pop("model", UNSET)
    if sections and alone is not UNSET:
        raise ConfigError(f"{places['model']}: model stands beside models; make it one of them", param="model")
    flags = {key: value for key, value in vars(args).items() if key in FIELDS and value is not UNSET}
    if flags.get("model", []) != []:
        named, origin = flags["model"], "command line"
    elif sections:
        named, origin = list(sections), places["models"]
    else:
        named, origin = (FIELDS["model"].default, "default") if alone is UNSET else (alone, places["model"])
    flags.pop("model", None)
    named = named if isinstance(named, list) else [named]
    if not named or not all(isinstance(given, str) and given for given in named):
        raise ConfigError(f"model is {named!r} ({origin}); name a directory, a hub id or demo", param="model")
    sources = file_sources(file, places)
    found = []
    for given in named:
        name, model = (given, given) if given in sections else _name_and_model(given)
        own = dict(sections.get(name, {}))
        pinned = own.pop("pinned", False)
        if not isinstance(pinned, bool):
            raise ConfigError(f"pinned of {given} is {pinned!r}; it must be true or false", param="pinned")
        place = f"{places[f'models.{name}']}, models.{name}" if own else ""
        for key in own:
            if str(key).replace("-", "_") in OF_THE_SERVER:
                raise ConfigError(f"{place}: {key} is one for all models; set it beside models", param=str(key))
        if given != name:  # NAME=MODEL
            own.pop("model", None)
        config, origins = resolve([*sources, (origin, {"model": model}), (place, own), ("command line", flags)])
        found.append(Named(name or config.model_name, config, origins, pinned))
    if len(found) > 1 and any("served_model_name" in each for each in (places, flags)):
        raise ConfigError("served_model_name names one model, and several are given; write them as NAME=MODEL")
    return found


def _name_and_model(given: str) -> tuple[str, str]:
    """`NAME=MODEL`, or a model alone; a path may hold an equals sign behind its first slash."""
    name, equals, model = given.partition("=")
    return (name, model) if equals and name and model and "/" not in name else ("", given)


def read_yaml(path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The `setting: value` lines of a file, and where each stands. Raises ConfigError."""
    import yaml

    places: dict[str, str] = {}

    def note(node: Any, within: str, depth: int) -> None:
        for key, value in node.value:
            name = within + (key.value if within == "models." else str(key.value).replace("-", "_"))
            place = f"{path}, line {key.start_mark.line + 1}"
            if name in places:
                raise ConfigError(f"{place}: {name} is given twice", param=name)
            places[name] = place
            if depth < 2 and isinstance(value, yaml.MappingNode):
                note(value, name + ".", depth + 1)

    try:
        with open(path, encoding="utf-8") as file:
            loader = yaml.SafeLoader(file)
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise ConfigError(f"--config {path} must hold `setting: value` lines", param="config")
            note(node, "", 0)  # first, for what is merged into a mapping stands in its node afterwards
            content = loader.construct_document(node)
    except OSError as error:
        raise ConfigError(f"cannot read --config {path}: {error.strerror}", param="config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} is not YAML: {error}", param="config") from None
    return content, places


def file_sources(content: Mapping[str, Any], places: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """What a file sets, for `resolve`: each setting with its line for an origin."""
    return [(places.get(str(key).replace("-", "_"), "what is merged"), {key: value}) for key, value in content.items()]
