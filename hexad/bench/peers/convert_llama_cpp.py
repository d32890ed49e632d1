"""GGUF by the converter in llama-cpp-python's source distribution, then llama.cpp's own quantization."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp as api

FORMATS = {8: api.LLAMA_FTYPE_MOSTLY_Q8_0, 4: api.LLAMA_FTYPE_MOSTLY_Q4_0}


def convert(checkpoint: Path, target: Path, bits: int) -> None:
    if bits == 16:
        return to_bfloat16(checkpoint, target)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        whole = Path(folder, "bfloat16.gguf")
        to_bfloat16(checkpoint, whole)
        params = api.llama_model_quantize_default_params()
        params.ftype = FORMATS[bits]
        if status := api.llama_model_quantize(str(whole).encode(), str(target).encode(), params):
            raise RuntimeError(f"llama_model_quantize gave {status}")


def to_bfloat16(checkpoint: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        package = f"llama-cpp-python=={api.__version__}"
        words = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
        words += ["-d", folder, package]
        subprocess.run([sys.executable, *words], check=True)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            members = [m for m in archive if "/llama.cpp/con" in m.name or "/llama.cpp/gguf-py/" in m.name]
            archive.extractall(folder, members, filter="data")
        script = next(Path(folder).glob("*/vendor/llama.cpp/convert_hf_to_gguf.py"))
        sys.path[:0] = [str(script.parent), str(script.parent / "gguf-py")]
        _take_unknown_tokenizers()
        sys.argv = [str(script), str(checkpoint), "--outtype", "bf16", "--outfile", str(target)]
        runpy.run_path(str(script), run_name="__main__")


def _take_unknown_tokenizers() -> None:
    """It knows tokenizers by a hash of what they make of a text; one of a random model is taken for Qwen's."""
    import conversion.base

    known = conversion.base.TextModel.get_vocab_base_pre

    def nearest(model: Any, tokenizer: Any) -> str:
        try:
            return str(known(model, tokenizer))
        except NotImplementedError:
            return "qwen2"

    conversion.base.TextModel.get_vocab_base_pre = nearest
