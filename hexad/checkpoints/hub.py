"""From what a user calls a model to a directory: a path, the word `demo`, or a Hugging Face id.

`huggingface_hub` loads its parts on first use, so importing this module costs nothing. Does
not know what is in the files.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NoReturn

import huggingface_hub

from hexad.checkpoints.weights import INDEX_FILE, SINGLE_FILE
from hexad.errors import CheckpointError, HexadError, NotFound, OutOfMemory
from hexad.json_file import read_json_object

DEMO = "demo"
DEMO_DIRECTORY = Path(__file__).with_name("demo")

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?", re.ASCII)
_TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    INDEX_FILE,
)
_WEIGHT_FILES = ("model.safetensors", "model-*-of-*.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def resolve(
    model: str, revision: str | None = None, *, memory_bytes: int | None = None, cache: Path | None = None
) -> Path:
    """The directory of a model, downloaded if it has to be.

    `revision` (a branch, tag or commit) applies to hub ids; the default is `main`, and what is
    complete in the cache is used without asking the hub. `memory_bytes`: weights larger than
    this are not downloaded. `cache`: Hugging Face's own by default (HF_HOME).
    Raises NotFound, CheckpointError or OutOfMemory, with what to do.
    """
    if model == DEMO:
        return _directory(DEMO_DIRECTORY)
    if Path(model).expanduser().is_dir():
        return _directory(Path(model).expanduser())
    if not _REPOSITORY.fullmatch(model) or ".." in model:
        raise NotFound(
            f"{model!r} is neither a directory here nor a Hugging Face id like 'Qwen/Qwen3-0.6B'", param="model"
        )
    cached = _cached(model, revision, cache)
    return cached if cached is not None else _download(model, revision, memory_bytes, cache)


def is_local(model: str, revision: str | None = None) -> bool:
    """Whether `resolve` finds it without a download."""
    if model == DEMO or Path(model).expanduser().is_dir():
        return True
    return _REPOSITORY.fullmatch(model) is not None and _cached(model, revision, None) is not None


def _directory(path: Path) -> Path:
    if not (path / "config.json").is_file():
        raise NotFound(f"{path} is no model: it has no config.json", param="model")
    return path


def _cached(model: str, revision: str | None, cache: Path | None) -> Path | None:
    """The snapshot in the cache, if all that is needed is there."""
    config = huggingface_hub.try_to_load_from_cache(model, "config.json", cache_dir=cache, revision=revision)
    if not isinstance(config, str):
        return None
    snapshot = Path(config).parent
    if not (snapshot / "tokenizer.json").is_file():
        return None
    if (snapshot / SINGLE_FILE).is_file():
        return snapshot
    if not (snapshot / INDEX_FILE).is_file():
        return None
    shards = read_json_object(snapshot / INDEX_FILE).get("weight_map")
    complete = isinstance(shards, dict) and all((snapshot / str(name)).is_file() for name in shards.values())
    return snapshot if complete else None


def _download(model: str, revision: str | None, memory_bytes: int | None, cache: Path | None) -> Path:
    try:
        info = huggingface_hub.HfApi().model_info(model, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        wanted = choose_files(sizes, model)
        root = cache or Path(huggingface_hub.constants.HF_HUB_CACHE)
        check_space(model, {name: sizes[name] for name in wanted}, root, memory_bytes)
        path = huggingface_hub.snapshot_download(model, revision=revision, cache_dir=cache, allow_patterns=wanted)
        return _directory(Path(path))
    except HexadError:
        raise
    except Exception as error:  # the client's errors have no base of their own, nor do its HTTP library's
        _explain(error, model, revision)


def choose_files(sizes: Mapping[str, int], model: str) -> list[str]:
    """Of a repository's files, those that Hexad reads. Raises CheckpointError if it has no safetensors."""
    names = [PurePosixPath(name) for name in sizes]
    weights = [str(name) for name in names if name.parent == PurePosixPath() and _matches(name, _WEIGHT_FILES)]
    if SINGLE_FILE in weights:
        weights = [SINGLE_FILE]
    if not weights:
        kinds = [str(name) for name in names if name.suffix in _PICKLES]
        advice = (
            f"only pickle ({kinds[0]}), which can run code and is never loaded; look for a revision or a copy of the "
            "model with .safetensors files"
            if kinds
            else "no model.safetensors; Hexad reads safetensors only"
        )
        raise CheckpointError(f"{model} has {advice}", param="model")
    return [str(name) for name in names if _matches(name, _TEXT_FILES)] + weights


def _matches(name: PurePosixPath, patterns: tuple[str, ...]) -> bool:
    return any(name.match(pattern) and len(name.parts) == len(PurePosixPath(pattern).parts) for pattern in patterns)


def check_space(model: str, sizes: Mapping[str, int], cache: Path, memory_bytes: int | None) -> None:
    """Raises OutOfMemory, before anything is fetched, if the files do not fit on the disk or in memory."""
    total = sum(sizes.values())
    existing = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if total > free:
        raise OutOfMemory(
            f"{model} takes {_gib(total)} and {existing} has {_gib(free)} free; free some, or set HF_HOME elsewhere"
        )
    weights = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
    if memory_bytes is not None and weights > memory_bytes:
        raise OutOfMemory(
            f"the weights of {model} take {_gib(weights)} and {_gib(memory_bytes)} of memory is available; "
            "choose a smaller model"
        )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _explain(error: Exception, model: str, revision: str | None) -> NoReturn:
    known = huggingface_hub.errors
    if isinstance(error, known.GatedRepoError):
        raise CheckpointError(
            f"{model} is gated: accept its terms at https://huggingface.co/{model}, then run `hf auth login`",
            param="model",
        ) from error
    if isinstance(error, known.RevisionNotFoundError):
        raise NotFound(f"{model} has no revision {revision!r}; see its branches and tags", param="revision") from error
    if isinstance(error, known.RepositoryNotFoundError):
        raise NotFound(
            f"{model} is neither a directory here nor a model on huggingface.co; if it is private, run `hf auth login`",
            param="model",
        ) from error
    if isinstance(error, known.OfflineModeIsEnabled):
        raise NotFound(
            f"{model} is not complete in the cache and HF_HUB_OFFLINE is set; unset it, or give a directory",
            param="model",
        ) from error
    raise CheckpointError(
        f"{model} is not a directory here and could not be fetched from huggingface.co "
        f"({type(error).__name__}: {error}); check the network, or give a directory",
        param="model",
    ) from error
