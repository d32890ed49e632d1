"""The process that tries grammars out: a bomb kills it, and nothing else.

Started by `hexad/engine/grammar_process.py` with the tokenizer's directory and the end-of-sequence ids. A frame is
four bytes of length and a message: `StructuredOutputs` come on stdin, a `Verdict` goes to stdout, and `READY` before
the first one. It ends with its parent.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import msgspec

from hexad.decoding.grammar import Vocabulary
from hexad.engine.messages import READY, Verdict, encode
from hexad.errors import BadRequest
from hexad.text.tokenizer import Tokenizer
from hexad.types import StructuredOutputs

MEMORY_BYTES = 512 * 2**20
"""For a grammar, beside the vocabulary."""
CPU_SECONDS = 2


def main(directory: str, eos_token_ids: list[int]) -> None:
    vocabulary = Vocabulary(Tokenizer.open(Path(directory) if directory else None), eos_token_ids)
    decode = msgspec.msgpack.Decoder(StructuredOutputs).decode
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    stdout.write(READY)
    stdout.flush()
    while frame := stdin.read(int.from_bytes(stdin.read(4), "big")):
        spent = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_SECONDS, resource.RLIM_INFINITY))
        answer = encode(_verdict(vocabulary, decode(frame)))
        stdout.write(len(answer).to_bytes(4, "big") + answer)
        stdout.flush()


def _verdict(vocabulary: Vocabulary, wanted: StructuredOutputs) -> Verdict:
    try:
        grammar = vocabulary.grammar(wanted)
        vocabulary.compile(grammar)
    except BadRequest as error:
        return Verdict(problem=str(error))
    return Verdict(grammar=grammar)


if __name__ == "__main__":
    main(sys.argv[1], [int(token) for token in sys.argv[2:]])
