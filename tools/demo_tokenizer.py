"""The tokenizer of the demo model: byte-level BPE with single digits, and the chat template.

Digits are tokens of their own, because arithmetic is learned digit by digit. Codes and invented words are kept out of
the text that the merges are learned from, so that they fall into short pieces that can be copied one by one.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hexad.bench.skills import SKILLS, example

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CALL_TAGS = ("<tool_call>", "</tool_call>", "<tools>", "</tools>", "<tool_response>", "</tool_response>")

CHAT_TEMPLATE = """\
{%- set ns = namespace(system='') -%}
{%- for message in messages if message.role == 'system' -%}
{%- set ns.system = ns.system + ('\\n' if ns.system else '') + message.content -%}
{%- endfor -%}
{%- if tools or ns.system -%}
{{- '<|im_start|>system\\n' + ns.system -}}
{%- if tools -%}
{{- '\\n' if ns.system else '' }}{{ '<tools>\\n' -}}
{%- for tool in tools -%}
{{- tool | tojson }}{{ '\\n' -}}
{%- endfor -%}
{{- '</tools>' -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages if message.role != 'system' -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'tool' -%}
{{- '<tool_response>\\n' + message.content + '\\n</tool_response>' -}}
{%- else -%}
{{- message.content or '' -}}
{%- for call in message.tool_calls or [] -%}
{%- set call = call.function or call -%}
{{- '\\n' if message.content or not loop.first else '' -}}
{{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' -}}
{{- call.arguments if call.arguments is string else call.arguments | tojson -}}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


PRE_TOKENIZER = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)


def common_words(seed: int) -> dict[str, int]:
    """Words of training examples with their counts: codes and rare words, which are invented ones, are left out."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    for _ in range(4000):
        for skill in SKILLS:
            found = example(skill, rng, held_out=False)
            texts = [f"{message['role']}\n{message['content']}" for message in found.messages]
            for text in (*texts, found.answer, json.dumps(found.tools)):
                counts.update(piece for piece, _ in PRE_TOKENIZER.pre_tokenize_str(text))
    return {word: count for word, count in counts.items() if count >= 10 and not is_code(word)}


def is_code(word: str) -> bool:
    """Two or more capitals, which are part of a random code."""
    letters = word.removeprefix("Ġ")
    return len(letters) > 1 and letters.isalpha() and letters.isupper() and letters != "JSON"


def corpus(seed: int) -> Iterator[str]:
    """What the merges are learned from: common words only, rare ones raised so that most become one token."""
    for word, count in common_words(seed).items():
        yield from [word.replace("Ġ", " ").replace("Ċ", "\n")] * (200 + count // 40)
    yield from ["system", "user", "assistant", "tool"] * 2000


def train_tokenizer(vocab: int, seed: int) -> PreTrainedTokenizerFast:
    """A tokenizer that can encode any text; `vocab` counts the special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = PRE_TOKENIZER
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in (END_OF_TEXT, START, END)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(CALL_TAGS), special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False, min_frequency=60,
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus(seed), trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in CALL_TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=None, eos_token=END, pad_token=END_OF_TEXT, unk_token=None,
        model_max_length=2560, clean_up_tokenization_spaces=False, chat_template=CHAT_TEMPLATE,
        padding_side="left", model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that every version of transformers knows
    path.write_text(json.dumps(config, indent=2) + "\n")
