"""Finding models: directories, the cache, and downloads by the real client from a small local hub."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hexad.checkpoints.hub import check_space, choose_files, resolve
from hexad.errors import CheckpointError, NotFound, OutOfMemory
from tests.checkpoints.hub_server import COMMIT, serve

RESOLVE = """
import sys
from pathlib import Path
from hexad.checkpoints.hub import resolve
from hexad.errors import HexadError
try:
    memory = int(sys.argv[3]) if sys.argv[3] else None
    print(resolve(sys.argv[1], sys.argv[2] or None, memory_bytes=memory))
except HexadError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """org/single, org/sharded, org/pickle and org/gated, each a tiny model with files nobody needs."""
    root = tmp_path_factory.mktemp("repositories")
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16}
    config = LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=2)
    torch.manual_seed(0)
    for name, shard_size in (("single", "5GB"), ("sharded", "2KB")):
        LlamaForCausalLM(config).save_pretrained(root / "org" / name, max_shard_size=shard_size)
        for extra in ("tokenizer.json", "README.md", "pytorch_model.bin", "onnx/x.onnx", "original/model.safetensors"):
            (root / "org" / name / extra).parent.mkdir(exist_ok=True)
            (root / "org" / name / extra).write_text("{}")
    (root / "org" / "pickle").mkdir()
    (root / "org" / "pickle" / "pytorch_model.bin").write_text("x")
    (root / "org" / "pickle" / "config.json").write_text("{}")
    (root / "org" / "gated").mkdir()
    return root


@pytest.fixture(scope="module")
def hub(repositories: Path) -> Iterator[tuple[str, list[str]]]:
    with serve(repositories) as address_and_requests:
        yield address_and_requests


def ask(home: Path, endpoint: str, model: str, revision: str = "", memory: str = "", offline: bool = False) -> str:
    """In a process of its own: the client reads its environment when it is imported."""
    environment = {
        **os.environ,
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", RESOLVE, model, revision, memory]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["single", "sharded"])
def test_a_model_is_fetched_once_and_only_what_is_needed(
    name: str, hub: tuple[str, list[str]], repositories: Path, tmp_path: Path
) -> None:
    endpoint, requests = hub
    directory = Path(ask(tmp_path, endpoint, f"org/{name}"))
    source = repositories / "org" / name
    wanted = {"config.json", "generation_config.json", "tokenizer.json"}
    wanted |= {path.name for path in source.glob("model*.safetensors*")}
    assert {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()} == wanted
    assert all((directory / file).read_bytes() == (source / file).read_bytes() for file in wanted)
    assert directory.name == COMMIT

    requests.clear()
    assert Path(ask(tmp_path, endpoint, f"org/{name}")) == directory
    assert not any("org" in request for request in requests)
    assert Path(ask(tmp_path, endpoint, f"org/{name}", offline=True)) == directory


def test_a_cache_that_lacks_a_shard_is_completed(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    directory = Path(ask(tmp_path, hub[0], "org/sharded"))
    shard = sorted(directory.glob("model-*.safetensors"))[0]
    shard.resolve().unlink()
    shard.unlink()
    assert ask(tmp_path, hub[0], "org/sharded", offline=True).startswith("NotFound org/sharded is not complete")
    assert Path(ask(tmp_path, hub[0], "org/sharded")) == directory
    assert shard.is_file()


def test_failures_say_what_to_do(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, requests = hub
    assert "neither a directory here nor a model" in ask(tmp_path, endpoint, "org/nothing")
    assert "no revision 'v9'" in ask(tmp_path, endpoint, "org/single", "v9")
    assert "gated: accept its terms" in ask(tmp_path, endpoint, "org/gated")
    assert "never loaded" in ask(tmp_path, endpoint, "org/pickle")
    assert "HF_HUB_OFFLINE" in ask(tmp_path, endpoint, "org/single", offline=True)
    assert "check the network" in ask(tmp_path, "http://127.0.0.1:9", "org/single")
    requests.clear()
    assert "OutOfMemory the weights of org/single take" in ask(tmp_path, endpoint, "org/single", memory="100")
    assert not any("resolve" in request for request in requests)


def test_a_directory_is_taken_as_it_is(repositories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = repositories / "org" / "single"
    assert resolve(str(source)) == source
    monkeypatch.chdir(source.parent)
    assert resolve("single") == Path("single")
    with pytest.raises(NotFound, match=r"no config\.json"):
        resolve(str(tmp_path))


NO_MODELS = ["", "..", "../x", "/not/here", "a/b/c", "a b", "org/../x", "-x/y", "http://x", "a\0b"]


@pytest.mark.parametrize("model", NO_MODELS)
def test_what_is_no_model_is_not_asked_for(model: str) -> None:
    with pytest.raises(NotFound, match=r"neither a directory here nor a Hugging Face id|no config\.json"):
        resolve(model)


def test_of_a_repository_only_what_is_read_is_chosen() -> None:
    names = ["config.json", "a/config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
             "model.safetensors.index.json", "consolidated.safetensors", "additional_chat_templates/rag.jinja",
             "tokenizer.model", "x.gguf", "pytorch_model.bin"]  # fmt: skip
    assert set(names) - set(choose_files(dict.fromkeys(names, 1), "m")) == {
        "a/config.json", "consolidated.safetensors", "tokenizer.model", "x.gguf", "pytorch_model.bin",
    }  # fmt: skip
    assert choose_files({"model.safetensors": 1, "model-00001-of-00001.safetensors": 1}, "m") == ["model.safetensors"]
    with pytest.raises(CheckpointError, match="only pickle"):
        choose_files({"pytorch_model.bin": 1}, "m")


def test_too_large_for_the_disk_is_refused_with_numbers(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OutOfMemory, match=rf"takes .* GiB and .* has {free / 2**30:.0f}\.?\d* GiB free|free"):
        check_space("m", {"model.safetensors": free + 2**40}, tmp_path / "not" / "yet", None)
    check_space("m", {"model.safetensors": 10}, tmp_path / "not" / "yet", 10)
    with pytest.raises(OutOfMemory, match="choose a smaller model"):
        check_space("m", {"model.safetensors": 11}, tmp_path, 10)
