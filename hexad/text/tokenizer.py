"""Text to token ids and back, as a model directory's tokenizer.json says.

Built on the `tokenizers` library; the result is that of transformers' AutoTokenizer. This
module does not know models, chats or streams.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel as ByteLevelSplit

from hexad.errors import BadRequest, CheckpointError
from hexad.json_file import read_json_object
from hexad.text.token_bytes import BYTE_LEVEL, ByteRules, read_byte_rules

MAX_TOKENIZER_BYTES = 256 * 1024 * 1024

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_CONTROL = re.compile("<[|｜].+[|｜]>", re.DOTALL)


class Tokenizer:
    """A vocabulary. Threads may share it."""

    def __init__(self, backend: Backend, special_tokens: dict[str, str], rules: ByteRules) -> None:
        self._backend = backend
        self.special_tokens = special_tokens
        """The named ones (bos_token, eos_token, ...): what a chat template can refer to."""
        self.rules = rules
        self._bytes: dict[int, bytes] = {}
        """Of each token that was looked up: a stream asks for one a step."""
        added = backend.get_added_tokens_decoder()
        self._added = {token_id: token.content for token_id, token in added.items()}
        self.special_token_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        named = [token.content for token in added.values() if token.special or _CONTROL.fullmatch(token.content)]
        self.control_words = sorted(filter(None, named), key=len, reverse=True)
        """What nobody may say to a model, the longest first: DeepSeek's roles are no special tokens."""
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        """Entries, added tokens included. A model's logits may be longer (padding)."""

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """From tokenizer.json, with tokenizer_config.json or else special_tokens_map.json for the named tokens.

        Raises CheckpointError if it is missing, damaged, too large, or decodes in a way that
        cannot be streamed.
        """
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"{directory} has no tokenizer.json; make one with transformers: "
                "AutoTokenizer.from_pretrained(directory).save_pretrained(directory)"
            )
        if path.stat().st_size > MAX_TOKENIZER_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes; at most {MAX_TOKENIZER_BYTES} are read")
        try:
            backend = Backend.from_buffer(path.read_bytes())
            backend.no_truncation()
            backend.no_padding()
            decoder = None if backend.decoder is None else json.loads(backend.decoder.__getstate__())
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        config = _optional_json(directory / "tokenizer_config.json")
        special_tokens = _named_tokens(config)
        if "added_tokens_decoder" not in config:
            special_tokens |= _named_tokens(_optional_json(directory / "special_tokens_map.json"))
        _add_missing(backend, config, special_tokens, str(directory / "tokenizer_config.json"))
        return cls(backend, special_tokens, read_byte_rules(decoder, str(path)))

    @classmethod
    def open(cls, directory: Path | None) -> Tokenizer:
        """As `load`; None is `of_bytes`."""
        return cls.of_bytes() if directory is None else cls.load(directory)

    @classmethod
    def of_bytes(cls) -> Tokenizer:
        """256 tokens, one a byte: for a model of random weights that comes without a tokenizer."""
        backend = Backend(BPE(dict(BYTE_LEVEL), []))
        backend.pre_tokenizer = ByteLevelSplit(add_prefix_space=False)
        backend.decoder = ByteLevelDecoder()
        return cls(backend, {}, ByteRules(byte_level=True))

    def save(self, directory: Path) -> None:
        """Write tokenizer.json."""
        self._backend.save(str(directory / "tokenizer.json"))

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        """Token ids of `text`.

        `add_special_tokens`: with the bos and eos that tokenizer.json asks for.
        `allow_special`: a special or added token written in `text` becomes that token, as in
        transformers and vLLM by default; False keeps it as literal text.
        Raises BadRequest for text that is not valid Unicode.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRequest(
                f"the text holds a lone surrogate (U+{ord(text[error.start]):04X}) at position {error.start}; "
                "send valid Unicode",
                param="prompt",
            ) from error
        if allow_special:
            # Unlike `encode`, a batch releases the GIL: other threads go on meanwhile.
            (encoding,) = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
            ids: list[int] = encoding.ids
            return ids
        literal = self._encode_literal(text)
        if not add_special_tokens:
            return literal
        template = self._backend.encode("a", add_special_tokens=True)
        first = template.special_tokens_mask.index(0)
        last = len(template.ids) - template.special_tokens_mask[::-1].index(0)
        return [*template.ids[:first], *literal, *template.ids[last:]]

    def _encode_literal(self, text: str) -> list[int]:
        """The backend's pipeline without its added tokens (as transformers' `_encode_without_added_tokens`)."""
        if self._backend.normalizer is not None:
            text = self._backend.normalizer.normalize_str(text)
        pieces = [text]
        if self._backend.pre_tokenizer is not None:
            pieces = [piece for piece, _ in self._backend.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for piece in pieces for token in self._backend.model.tokenize(piece)]

    def encode_inside(self, text: str) -> list[int] | None:
        """Literal `text` in the middle of an answer: nothing is put in front, as SentencePiece does with a space.

        None where the tokens would not spell `text` exactly.
        """
        for before in ("", "\n"):
            head, whole = self._encode_literal(before), self._encode_literal(before + text)
            ids = whole[len(head) :]
            if whole[: len(head)] == head and b"".join(map(self.token_bytes, ids)) == text.encode():
                return ids
        return None

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`; incomplete characters become U+FFFD. Raises BadRequest for an id out of range."""
        self.check_ids(token_ids)
        text: str = self._backend.decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text

    def check_ids(self, token_ids: Sequence[int], param: str = "prompt") -> None:
        """Raises BadRequest for an id outside the vocabulary."""
        if token_ids and (min(token_ids) < 0 or max(token_ids) > self.max_token_id):
            wrong = next(token_id for token_id in token_ids if not 0 <= token_id <= self.max_token_id)
            raise BadRequest(
                f"{param} holds token id {wrong}; the vocabulary has 0 to {self.max_token_id}", param=param
            )

    @property
    def max_token_id(self) -> int:
        """Ids may have gaps, so this can exceed `vocab_size` - 1."""
        return max(self.vocab_size - 1, max(self._added, default=0))

    @property
    def bos_token_id(self) -> int | None:
        return self.token_id(self.special_tokens.get("bos_token"))

    def token_id(self, content: str | None) -> int | None:
        if content is None:
            return None
        token_id: int | None = self._backend.token_to_id(content)
        return token_id

    def token_bytes(self, token_id: int) -> bytes:
        """What the token adds to the text; may be part of a character. Empty for an id that has no token."""
        found = self._bytes.get(token_id)
        if found is None:
            found = self._look_up(token_id)
            if 0 <= token_id <= self.max_token_id:
                self._bytes[token_id] = found
        return found

    def _look_up(self, token_id: int) -> bytes:
        content = self._added.get(token_id)
        if content is None:
            content = self._backend.id_to_token(token_id) if 0 <= token_id < 2**32 else None
        return b"" if content is None else self.rules.to_bytes(content)

    def token_text(self, token_id: int) -> str:
        """For people; bytes that are no complete character become U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", "replace")


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}


def _content(value: Any) -> str | None:
    """A token is a string, or an object with its content and flags."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _named_tokens(config: dict[str, Any]) -> dict[str, str]:
    contents = {name: _content(config.get(name)) for name in _NAMED}
    return {name: content for name, content in contents.items() if content is not None}


def _add_missing(backend: Backend, config: dict[str, Any], named: dict[str, str], source: str) -> None:
    """Tokens that only tokenizer_config.json names join the vocabulary, in the order of their ids."""
    listed = config.get("added_tokens_decoder") or {}
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    try:
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        by_id = [listed[key] for key in sorted(listed, key=int)]
        missing = [AddedToken(**token) for token in by_id if token["content"] not in known]
        if missing:
            backend.add_tokens(missing)
        extras = extra.values() if isinstance(extra, dict) else extra
        special = [*named.values(), *(content for value in extras if (content := _content(value)))]
        backend.add_special_tokens([AddedToken(content, special=True, normalized=False) for content in special])
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise CheckpointError(f"{source}: its added tokens cannot be read: {error!r}") from error
