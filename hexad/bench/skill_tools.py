"""The tool skill: calls in the `<tool_call>` form, sentences made of results, and no call where no tool fits."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from hexad.bench.harbour import COUNTRIES, FIRST_NAMES, NOUNS
from hexad.bench.skill_base import (
    Example,
    Maker,
    Message,
    Tool,
    assistant,
    clock,
    code,
    full_name,
    is_held_out,
    one_of,
    phrase,
    place,
    pseudo_word,
    small,
    user,
)  # fmt: skip
from hexad.bench.skill_chat import REFUSAL, chat

Values = dict[str, str | int]


@dataclass(frozen=True)
class Kind:
    """A family of tools: names it may have, parameters with names *they* may have, questions, and a result."""

    names: tuple[str, ...]
    about: tuple[str, ...]
    parameters: dict[str, tuple[tuple[str, ...], Maker]]
    asks: tuple[str, ...]
    result: dict[str, Maker]
    says: str


def person(rng: random.Random) -> str:
    return rng.choice((rng.choice(FIRST_NAMES), full_name(rng), pseudo_word(rng).title()))


def words(rng: random.Random) -> str:
    return phrase(rng, 4) if rng.random() < 0.7 else pseudo_word(rng)


def thing(rng: random.Random) -> str:
    return rng.choice(NOUNS) if rng.random() < 0.6 else pseudo_word(rng)


DONE: dict[str, Maker] = {"status": one_of("ok", "done")}
KINDS = (
    Kind(("get_weather", "weather", "weather_lookup", "current_weather"),
         ("Get the weather of a city.", "Current weather in a place."),
         {"a": (("city", "location", "place"), place)},
         ("What is the weather in {a}?", "How is the weather in {a} today?", "Is it raining in {a}?",
          "Weather in {a}?"),
         {"temperature": small(-20, 40), "sky": one_of("sunny", "cloudy", "rainy", "windy", "foggy")},
         "In {a} it is {temperature} degrees and {sky}."),
    Kind(("send_email", "send_mail", "email", "send_message"), ("Send an email to somebody.", "Write to a person."),
         {"a": (("to", "recipient", "name"), person), "b": (("text", "body", "message"), words)},
         ("Send an email to {a}: {b}", "Write to {a}: {b}", "Tell {a} by email: {b}"), DONE,
         "I sent your message to {a}."),
    Kind(("set_alarm", "alarm", "wake_me", "create_alarm"), ("Set an alarm clock.", "Ring at a given time."),
         {"a": (("time", "at", "clock"), clock)},
         ("Wake me at {a}.", "Set an alarm for {a}.", "I have to get up at {a}.", "Ring the alarm at {a}."), DONE,
         "Your alarm is set for {a}."),
    Kind(("get_stock_price", "stock_price", "share_price", "quote"), ("Price of a share.", "Look up a stock price."),
         {"a": (("symbol", "ticker", "stock"), code)},
         ("What is the price of {a} stock?", "How much is a share of {a}?", "What is the stock {a} worth?"),
         {"price": small(1, 999), "currency": one_of("euros", "dollars")}, "A share of {a} costs {price} {currency}."),
    Kind(("play_music", "play_song", "music_player", "play"), ("Play a song.", "Start music."),
         {"a": (("song", "title", "track"), words)},
         ("Play the song {a}.", "I want to hear {a}.", "Put on {a}, please.", "Play {a}."), DONE, "Now playing {a}."),
    Kind(("translate", "translate_text", "translator"), ("Translate text.", "Translate words to a language."),
         {"a": (("text", "words", "input"), words), "b": (("language", "target", "to"),
          one_of("French", "German", "Spanish", "Italian", "Dutch", "Polish", "Greek", "Danish"))},
         ("Translate {a} to {b}.", "What is {a} in {b}?", "How do you say {a} in {b}?"),
         {"translation": pseudo_word}, "In {b} that is {translation}."),
    Kind(("search_flights", "find_flight", "flights"), ("Find flights between two cities.", "Search for a flight."),
         {"a": (("origin", "from", "start"), place), "b": (("destination", "to", "end"), place)},
         ("Find a flight from {a} to {b}.", "I want to fly from {a} to {b}.", "Which flights go from {a} to {b}?"),
         {"flight": code, "price": small(20, 2000)}, "Flight {flight} from {a} to {b} costs {price} euros."),
    Kind(("add_to_list", "shopping_list", "add_item", "buy_list"), ("Add to the shopping list.", "Note what to buy."),
         {"a": (("item", "product", "thing"), thing), "b": (("count", "quantity", "amount"), small(1, 99))},
         ("Put {b} of {a} on my shopping list.", "Add {b} times {a} to the list.", "I need to buy {b} of {a}."), DONE,
         "I added {b} of {a} to your list."),
    Kind(("get_time", "current_time", "time_in_city", "world_clock"),
         ("Time of day in a city.", "Local time somewhere."),
         {"a": (("city", "location", "place"), place)},
         ("What time is it in {a}?", "Tell me the time in {a}.", "How late is it in {a}?"), {"time": clock},
         "In {a} it is {time} now."),
    Kind(("create_note", "save_note", "write_note", "note"), ("Save a note.", "Write something down."),
         {"a": (("text", "note", "content"), words)},
         ("Make a note: {a}", "Write down {a}.", "Save a note that says {a}.", "Note this: {a}"), DONE,
         "I wrote down: {a}."),
    Kind(("call_contact", "phone_call", "make_call", "dial"), ("Call a person by phone.", "Dial a contact."),
         {"a": (("name", "contact", "person"), person)},
         ("Call {a}.", "Please phone {a}.", "Ring up {a}.", "Give {a} a call."), DONE, "I am calling {a}."),
    Kind(("track_parcel", "find_parcel", "parcel_status"), ("Track a parcel by its number.", "Where a parcel is."),
         {"a": (("id", "number", "parcel"), code)},
         ("Where is parcel {a}?", "Track my parcel {a}.", "What is the status of parcel {a}?"), {"place": place},
         "Parcel {a} is in {place}."),
    Kind(("set_light", "lights", "dim_light", "light_control"), ("Change the light in a room.", "Dim or light a lamp."),
         {"a": (("room", "where", "place"),
                one_of("kitchen", "bedroom", "bathroom", "hall", "garden", "office", "cellar")),
          "b": (("level", "brightness", "percent"), small(0, 100))},
         ("Set the light in the {a} to {b} percent.", "Dim the {a} to {b} percent.", "{a} light to {b} percent."), DONE,
         "The light in the {a} is at {b} percent."),
    Kind(("get_population", "population", "count_people"), ("Number of people in a country.", "Population figures."),
         {"a": (("country", "state", "nation"), lambda rng: rng.choice((rng.choice(COUNTRIES), place(rng))))},
         ("How many people live in {a}?", "What is the population of {a}?", "How big is the population of {a}?"),
         {"people": small(1000, 99999)}, "In {a} there are {people} people."),
    Kind(("book_table", "reserve_table", "table_booking"),
         ("Book a table in a restaurant.", "Reserve seats for dinner."),
         {"a": (("restaurant", "name", "place"), words), "b": (("people", "guests", "seats"), small(1, 20)),
          "c": (("time", "at", "hour"), clock)},
         ("Book a table for {b} at {a} at {c}.", "Reserve {b} seats at {a} for {c}."), {"booking": code},
         "Your table at {a} is booked, number {booking}."),
    Kind(("lookup_word", "dictionary", "define"), ("Meaning of a word.", "Look a word up."),
         {"a": (("word", "term", "entry"), thing)},
         ("What does the word {a} mean?", "Define {a}.", "Look up the word {a} in the dictionary."), {"meaning": words},
         "The word {a} means {meaning}."),
)  # fmt: skip


@dataclass(frozen=True)
class Offer:
    """A tool as it is offered: one name of its kind and one name for each parameter."""

    kind: Kind
    name: str
    about: str
    parameters: dict[str, str]

    def schema(self, rng: random.Random) -> Tool:
        properties: dict[str, dict[str, str]] = {}
        for slot, name in self.parameters.items():
            is_number = isinstance(self.kind.parameters[slot][1](rng), int)
            properties[name] = {"type": "integer" if is_number else "string"}
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        return {"type": "function",
                "function": {"name": self.name, "description": self.about, "parameters": parameters}}  # fmt: skip


def offer(kind: Kind, rng: random.Random) -> Offer:
    """A tool of a kind; now and then its name is an invented one, so that names must be read, not known."""
    name = rng.choice(kind.names) if rng.random() < 0.8 else f"{rng.choice(kind.names)}_{pseudo_word(rng)}"
    return Offer(kind, name, rng.choice(kind.about), {slot: rng.choice(p[0]) for slot, p in kind.parameters.items()})


def tools(rng: random.Random, held_out: bool, questions: int = 1) -> Example:
    """A question with one to four tools on offer: a call (60 %), the sentence after its result, or no call.

    With more `questions`, the first ones are answered turns, calls with their results and sentences among them.
    Held out: the values of the call's arguments; for a sentence after a result, the arguments and the result. Where no
    tool fits the key is that of the chat skill or the question about another kind of tool.
    """
    offers = [offer(kind, rng) for kind in rng.sample(KINDS, rng.randint(1, 4))]
    schemas = [each.schema(rng) for each in offers]
    messages: list[Message] = []
    while True:
        is_last = questions <= 1
        if rng.random() < 0.2:
            turn, answer, key = unfit(offers, rng, held_out)
        else:
            turn, answer, key = fit(rng.choice(offers), rng, with_result=not is_last or rng.random() < 0.25)
        if is_held_out("tools", key) != held_out:
            continue
        messages += turn
        if is_last:
            return Example("tools", messages, schemas, answer, key)
        messages.append(assistant(answer))
        questions -= 1


def fit(chosen: Offer, rng: random.Random, with_result: bool) -> tuple[list[Message], str, str]:
    """A question for a tool on offer and its call or, behind call and result, the sentence."""
    kind = chosen.kind
    values: Values = {slot: maker(rng) for slot, (_, maker) in kind.parameters.items()}
    messages = [user(rng.choice(kind.asks).format(**values))]
    call = {"name": chosen.name, "arguments": {chosen.parameters[slot]: value for slot, value in values.items()}}
    key = json.dumps(values, sort_keys=True)
    if not with_result:
        return messages, f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>", key
    result: Values = {name: maker(rng) for name, maker in kind.result.items()}
    messages.append({"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]})
    messages.append({"role": "tool", "name": chosen.name, "content": json.dumps(result)})
    return messages, kind.says.format(**values, **result), key + json.dumps(result)


def unfit(offers: list[Offer], rng: random.Random, held_out: bool) -> tuple[list[Message], str, str]:
    """A question that no tool on offer can answer: a chat question, or one for a tool that is not there."""
    if rng.random() < 0.5:
        other = chat(rng, held_out)
        return other.messages, other.answer, other.key
    kind = rng.choice([kind for kind in KINDS if all(kind is not each.kind for each in offers)])
    values: Values = {slot: maker(rng) for slot, (_, maker) in kind.parameters.items()}
    return [user(rng.choice(kind.asks).format(**values))], REFUSAL, json.dumps(values, sort_keys=True)
