"""The process that tries grammars out: a bomb kills it, and nothing else.

`python -m hexad.engine.grammar_worker`, started by `hexad/engine/grammar_process.py`. Frames come on stdin and
answers go to stdout; each is four bytes of length and a message. It ends with its parent.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from hexad.decoding.grammar import Vocabulary
from hexad.engine.messages import TryGrammar, TryVocabulary, Verdict, encode
from hexad.errors import BadRequest
from hexad.text.tokenizer import Tokenizer
from hexad.types import StructuredOutputs

MEMORY_BYTES = 512 * 2**20
"""For a grammar, beside the vocabulary."""
CPU_SECONDS = 2


def main() -> None:
    begin = msgspec.msgpack.decode(_read(sys.stdin.buffer), type=TryVocabulary)
    vocabulary = Vocabulary(Tokenizer.open(Path(begin.directory) if begin.directory else None), begin.eos_token_ids)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    while frame := _read(sys.stdin.buffer):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(usage.ru_utime + usage.ru_stime) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_SECONDS, resource.RLIM_INFINITY))
        wanted = msgspec.msgpack.decode(frame, type=TryGrammar).wanted
        _write(sys.stdout.buffer, encode(_verdict(vocabulary, wanted)))


def _verdict(vocabulary: Vocabulary, wanted: StructuredOutputs) -> Verdict:
    try:
        grammar = vocabulary.grammar(wanted)
        vocabulary.compile(grammar)
    except BadRequest as error:
        return Verdict(problem=str(error))
    return Verdict(grammar=grammar)


def _read(stream: BinaryIO) -> bytes:
    """A frame; nothing at the end."""
    return stream.read(int.from_bytes(stream.read(4), "big"))


def _write(stream: BinaryIO, frame: bytes) -> None:
    stream.write(len(frame).to_bytes(4, "big") + frame)
    stream.flush()


if __name__ == "__main__":
    main()
