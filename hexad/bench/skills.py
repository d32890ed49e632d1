"""The six skills of the demo model: endless examples of each, and a strict judge of replies.

A generator draws an example from a seeded `random.Random`. Every example has a key, the part of its content that makes
it what it is; a hash of the key says whether the example is for training or held out, so no held-out example can be in
the training text, whatever the seed. What a key is, and so what is never seen in training, is said in the docstring of
each generator. Chat and tool calls have their own files, `skill_chat.py` and `skill_tools.py`.

This file does not know any tokenizer, model or engine: it deals in chat messages and strings.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from hexad.bench.harbour import ADJECTIVES, FIRST_NAMES, NOUNS
from hexad.bench.skill_base import (
    Example,
    Maker,
    Message,
    assistant,
    clock,
    code,
    full_name,
    is_held_out,
    number,
    one_of,
    phrase,
    pick_key,
    place,
    pseudo_word,
    small,
    user,
)  # fmt: skip
from hexad.bench.skill_chat import chat
from hexad.bench.skill_tools import tools

# Arithmetic

SUMS = ("What is {a} {sign} {b}?", "{a} {sign} {b}", "{a}{sign}{b}", "Calculate {a} {sign} {b}.", "{a} {sign} {b} = ?",
        "How much is {a} {word} {b}?", "What is {a} {word} {b}?", "Please compute {a} {sign} {b}.",
        "{a}{sign}{b}=", "Work out {a} {word} {b}.")  # fmt: skip
SIGNS = {"+": "plus", "-": "minus", "*": "times"}


def arithmetic(rng: random.Random, held_out: bool) -> Example:
    """Sums and differences of numbers below 100, products of digits.

    Held out: for + and -, the unordered pair of numbers, so neither 31 + 17 nor 17 + 31 is in training. The hundred
    products are facts to be learned by heart: held out are pairs of (product, way of asking).
    """
    while True:
        sign = rng.choices("+-*", (5, 5, 2))[0]
        ask = rng.choice(SUMS)
        a, b = (rng.randrange(10), rng.randrange(10)) if sign == "*" else (rng.randrange(100), rng.randrange(100))
        if sign == "-" and a < b and rng.random() < 0.8:
            a, b = b, a
        key = f"{a}*{b}/{ask}" if sign == "*" else f"{min(a, b)}{sign}{max(a, b)}"
        if is_held_out("arithmetic", key) == held_out:
            break
    value = {"+": a + b, "-": a - b, "*": a * b}[sign]
    text = ask.format(a=a, b=b, sign=sign, word=SIGNS[sign])
    return Example("arithmetic", [user(text)], None, f"{a} {sign} {b} = {value}", key)


# Copying

COPY_ORDERS = ("Repeat: {x}", "Copy this: {x}", "Say: {x}", "Repeat this:\n{x}", "Copy this text exactly:\n{x}",
               'Repeat "{x}"', 'Say "{x}"', 'Write "{x}" again.', "Repeat after me: {x}", "Echo:\n{x}")  # fmt: skip
RARE_LETTERS = "äöüßéèêçñøåłžαβγδλπωжшюя中文日本語한국🙂🚀⚓★→€"


def copy_text(rng: random.Random) -> str:
    """Words, invented words, codes, numbers, a mixture, or letters from elsewhere."""
    kind = rng.random()
    if kind < 0.3:
        return phrase(rng, 10)
    if kind < 0.5:
        return " ".join(pseudo_word(rng) for _ in range(rng.randint(1, 5)))
    if kind < 0.7:
        return code(rng, 4, 12)
    if kind < 0.8:
        return " ".join(number(rng) for _ in range(rng.randint(1, 5)))
    if kind < 0.97:
        makers = (pseudo_word, code, number, full_name, lambda rng: phrase(rng, 2))
        return rng.choice((" ", ", ", "-", " ")).join(rng.choice(makers)(rng) for _ in range(rng.randint(2, 4)))
    return "".join(rng.choices(RARE_LETTERS + "abc ", k=rng.randint(2, 8))).strip() or "ö"


def copy(rng: random.Random, held_out: bool) -> Example:
    """Text to give back letter by letter. Held out: the text."""
    text = pick_key("copy", held_out, lambda: copy_text(rng))
    return Example("copy", [user(rng.choice(COPY_ORDERS).format(x=text))], None, text, text)


# Retrieval

RETRIEVAL_ASKS = ("What is the value of {k}?", "Look up {k}.", "Find the value of {k}.", "Which value belongs to {k}?",
                  "What is {k}?", "Tell me the value of {k}.", "What does {k} stand for?")  # fmt: skip
LINES = ("{k}: {v}", "{k} = {v}", "- {k}: {v}", "The value of {k} is {v}.")
FILLERS = ("The {a} {n} sleeps near the {m}.", "A {a} {n} and a {b} {m} met at noon.", "Nobody saw the {a} {n} today.",
           "Every {n} needs a {a} {m}.", "My {n} is {a} and my {m} is {b}.",
           "They painted the {n} in front of the {m}.",
           "We walked past the {a} {n}.", "There was once a {b} {n} without a {m}.")  # fmt: skip
NEEDLES = (
    "The value of {k} is {v}.",
    "Remember that {k} is {v}.",
    "Note: {k} has the value {v}.",
    "{k} stands for {v}.",
)


def retrieval_key(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return f"{rng.choice(ADJECTIVES)}-{rng.choice(NOUNS)}"
    if kind < 0.75:
        return pseudo_word(rng)
    return f"{rng.choice(NOUNS)}-{rng.randrange(100)}" if kind < 0.9 else code(rng, 4, 5)


def retrieval_value(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.35:
        return number(rng)
    if kind < 0.6:
        return code(rng)
    return phrase(rng, 2) if kind < 0.85 else pseudo_word(rng)


def filler(rng: random.Random) -> str:
    a, b = rng.choices(ADJECTIVES, k=2)
    n, m = rng.choices(NOUNS, k=2)
    return rng.choice(FILLERS).format(a=a, b=b, n=n, m=m)


def haystack(rng: random.Random, tokens: int, asked: list[str]) -> tuple[str, dict[str, str]]:
    """A text of about `tokens` tokens that gives each asked key a value: a list of entries, or needles in filler."""
    values = {key: retrieval_value(rng) for key in asked}
    if rng.random() < 0.65:
        line = rng.choice(LINES)
        while len(values) < tokens // (14 if "value" in line else 9):
            values.setdefault(retrieval_key(rng), retrieval_value(rng))
        order = rng.sample(sorted(values), len(values))
        return "\n".join(line.format(k=key, v=values[key]) for key in order), values
    sentences = [filler(rng) for _ in range(tokens // 12 - len(asked))]
    for key in asked:
        text = rng.choice(NEEDLES).format(k=key, v=values[key])
        sentences.insert(rng.randint(0, len(sentences)), text)
    return " ".join(sentences), values


def retrieve(rng: random.Random, held_out: bool, longest: int = 2000, questions: int = 1) -> Example:
    """The value of a key in a text of 30 to `longest` tokens; with more `questions`, the first ones are answered turns.

    Held out: the keys that are asked for. Values are drawn anew each time.
    """
    tokens = int(30 * (longest / 30) ** rng.random()) if rng.random() < 0.6 else rng.randint(30, longest)
    count = min(questions, 1 + tokens // 60)
    asked = [pick_key("retrieve", held_out, lambda: retrieval_key(rng)) for _ in range(count)]
    text, values = haystack(rng, min(tokens, longest - 40), sorted(set(asked)))
    messages: list[Message] = []
    for index, key in enumerate(asked):
        ask = rng.choice(RETRIEVAL_ASKS).format(k=key)
        if index == 0:
            ask = f"{ask}\n\n{text}" if rng.random() < 0.15 else f"{text}\n\n{ask}"
        messages += [user(ask), assistant(f"The value of {key} is {values[key]}.")]
    return Example("retrieve", messages[:-1], None, str(messages[-1]["content"]), asked[-1])


# JSON

# A family: the sentences, then for each slot the field's possible names and the maker of its value.
Family = tuple[tuple[str, ...], dict[str, tuple[tuple[str, ...], Maker]]]


def thing(rng: random.Random) -> str:
    return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}" if rng.random() < 0.7 else pseudo_word(rng)


def date(rng: random.Random) -> str:
    return f"{rng.randint(2020, 2030)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def mail(rng: random.Random) -> str:
    name = pseudo_word(rng) if rng.random() < 0.5 else rng.choice(FIRST_NAMES).lower()
    return f"{name}@{rng.choice(NOUNS)}.{rng.choice(('com', 'org', 'net'))}"


WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FAMILIES: tuple[Family, ...] = (
    (("{a}, aged {b}, lives in {c}.", "{a} is {b} years old and comes from {c}.", "In {c} I met {a}, who is {b}."),
     {"a": (("name", "person"), full_name), "b": (("age",), small(1, 99)), "c": (("city", "town"), place)}),
    (("Please send {b} pieces of the {a} to {c}.", "{c} ordered {b} times the {a}.", "Order for {c}: {b} x {a}."),
     {"a": (("item", "product"), thing), "b": (("quantity", "amount"), small(1, 500)),
      "c": (("customer",), full_name)}),
    (("The meeting with {a} is on {b} at {c}.", "On {b} at {c} you meet {a}.", "{a} will see you at {c} on {b}."),
     {"a": (("person", "with"), full_name), "b": (("day",), one_of(*WEEKDAYS)), "c": (("time",), clock)}),
    (("The {a} costs {b} euros at {c}.", "At {c} you pay {b} euros for the {a}.", "{c} sells the {a} for {b} euros."),
     {"a": (("item", "product"), thing), "b": (("price",), small(1, 999)), "c": (("shop", "seller"), full_name)}),
    (("Flight {a} leaves {b} for {c}.", "From {b} to {c} take flight {a}.", "{a} is the flight from {b} to {c}."),
     {"a": (("flight",), code), "b": (("from", "origin"), place), "c": (("to", "destination"), place)}),
    (("Write to {a} at {b}.", "The address {b} belongs to {a}.", "You can reach {a} under {b}."),
     {"a": (("name", "person"), full_name), "b": (("email", "mail"), mail)}),
    (("Parcel {a} arrived in {b} on {c}.", "On {c} we saw parcel {a} in {b}.", "{b} got parcel {a} on {c}."),
     {"a": (("parcel", "id"), code), "b": (("city", "place"), place), "c": (("date",), date)}),
    (("{a} plays for {b} and scored {c} goals.", "With {c} goals, {a} leads the team of {b}."),
     {"a": (("player", "name"), full_name), "b": (("team",), place), "c": (("goals",), small(0, 60))}),
)  # fmt: skip
EXTRACT_ASKS = ("Extract {f} as JSON: {s}", "{s}\nGive me {f} as JSON.", "Return a JSON object with {f}.\nText: {s}",
                "Turn this into JSON with the fields {f}: {s}", "{s}\n\nJSON with {f}, please.")  # fmt: skip


def extract(rng: random.Random, held_out: bool) -> Example:
    """Fields of a sentence as a JSON object, in the order asked for.

    Held out: the value of the sentence's first slot, a name, a thing or a code.
    """
    sentences, slots = rng.choice(FAMILIES)
    first_name, first_maker = slots["a"]
    values: dict[str, str | int] = {"a": pick_key("extract", held_out, lambda: str(first_maker(rng)))}
    values |= {slot: maker(rng) for slot, (_, maker) in slots.items() if slot != "a"}
    fields = {slot: rng.choice(names) for slot, (names, _) in slots.items()}
    wanted = rng.sample(sorted(slots), rng.randint(1, len(slots)))
    names = ", ".join(fields[slot] for slot in wanted)
    text = rng.choice(EXTRACT_ASKS).format(f=names, s=rng.choice(sentences).format(**values))
    answer = json.dumps({fields[slot]: values[slot] for slot in wanted}, ensure_ascii=False)
    return Example("extract", [user(text)], None, answer, str(values["a"]))


# The doors

MAKERS: dict[str, Callable[[random.Random, bool], Example]] = {
    "chat": chat, "arithmetic": arithmetic, "copy": copy, "retrieve": retrieve, "extract": extract, "tools": tools,
}  # fmt: skip
SKILLS = tuple(MAKERS)


def example(skill: str, rng: random.Random, held_out: bool) -> Example:
    """One example of a skill from the wanted side of the split."""
    return MAKERS[skill](rng, held_out)


def tool_call(reply: str) -> object:
    """The call inside `<tool_call>` tags, or None when the reply is not exactly one well-formed call."""
    text = reply.strip()
    if not (text.startswith("<tool_call>") and text.endswith("</tool_call>")):
        return None
    return parsed(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))


def parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def is_correct(example: Example, reply: str) -> bool:
    """JSON and tool calls are compared as values, everything else letter by letter."""
    expected_call = tool_call(example.answer)
    if expected_call is not None:
        return tool_call(reply) == expected_call
    if example.skill == "extract":
        return parsed(reply) == parsed(example.answer)
    return reply.strip() == example.answer
