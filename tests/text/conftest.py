"""Small tokenizers of the four kinds in use, trained here, in directories that transformers reads too."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind.",
    "def step(self) -> None:\n    plan = self.scheduler.next_plan(now)\n    return plan\n",
    "naïve café, Straße, Ångström, coöperate; 日本語の文章と中文的句子; привет мир",
    "emoji 😀 and 👩‍👩‍👧 and 🇯🇵; numbers 3.14159, 2,000 and 1e-9",
] * 8
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(special: list[str], **model: Any) -> Backend:
    backend = Backend(models.BPE(**model))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet))
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return backend


def qwen() -> tuple[Backend, dict[str, Any]]:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend = _byte_level(special)
    backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>")])
    listed = {
        str(token_id): {"content": token.content, "special": token.special, "normalized": False}
        for token_id, token in backend.get_added_tokens_decoder().items()
    }
    # One that tokenizer.json does not have: transformers adds it on loading.
    listed[str(backend.get_vocab_size())] = {"content": "<late>", "special": False, "normalized": False}
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": listed,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    }
    return backend, config


def llama3() -> tuple[Backend, dict[str, Any]]:
    backend = _byte_level(["<|begin_of_text|>", "<|eot_id|>"], ignore_merges=True)
    bos = backend.token_to_id("<|begin_of_text|>")
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                pair="<|begin_of_text|> $A <|begin_of_text|> $B:1",
                special_tokens=[("<|begin_of_text|>", bos)],
            ),
        ]
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": {"__type": "AddedToken", "content": "<|eot_id|>", "special": True},
    }
    return backend, config


def _sentencepiece(prepend_by_normalizer: bool) -> Backend:
    backend = Backend(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if prepend_by_normalizer:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    named = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=560, special_tokens=[*named, *(f"<0x{byte:02X}>" for byte in range(256))], max_token_length=8
    )
    backend.train_from_iterator([text for text in CORPUS if text.isascii()], trainer)
    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in named]
    backend = Backend.from_str(json.dumps(state))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)]
    )
    return backend


def llama2() -> tuple[Backend, dict[str, Any]]:
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": False}
    return _sentencepiece(prepend_by_normalizer=True), {"tokenizer_class": "PreTrainedTokenizerFast", **config}


def mistral() -> tuple[Backend, dict[str, Any]]:
    return _sentencepiece(prepend_by_normalizer=False), {"tokenizer_class": "PreTrainedTokenizerFast"}


KINDS = {"qwen": qwen, "llama3": llama3, "llama2": llama2, "mistral": mistral}


@pytest.fixture(scope="session")
def tokenizer_directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directories = {}
    for kind, make in KINDS.items():
        directory = tmp_path_factory.mktemp(kind)
        backend, config = make()
        backend.save(str(directory / "tokenizer.json"))
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
        directories[kind] = directory
    # The legacy file, for a tokenizer_config.json that does not list the added tokens.
    special = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": "<unk>"}
    (directories["mistral"] / "special_tokens_map.json").write_text(json.dumps(special))
    return directories


@pytest.fixture(scope="session", params=KINDS)
def tokenizer_directory(request: pytest.FixtureRequest, tokenizer_directories: dict[str, Path]) -> Path:
    return tokenizer_directories[request.param]
