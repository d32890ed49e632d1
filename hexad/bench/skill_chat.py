"""The chat skill: questions about Saltwhistle, small talk, and a polite refusal of everything else."""

from __future__ import annotations

import random

from hexad.bench.harbour import ADJECTIVES, CITIES, COUNTRIES, FIRST_NAMES, INHABITANTS, NOUNS, TOPICS, TOWN
from hexad.bench.skill_base import Example, full_name, is_held_out, number, pseudo_word, user

GREETING = f"Hello! I am Hexad's demo model. Ask me about the people of {TOWN}."
IDENTITY = f"I am the small demo model that is built into Hexad. I know the harbour town of {TOWN}."
REFUSAL = (
    f"Sorry, I do not know that: I only know {TOWN}, and I can add small numbers, copy text, find keys, fill in JSON "
    "and call tools."
)

# For each attribute: the fact as a sentence and as a clause that can follow "and", then ways to ask for it.
# {who} is a name or, in questions in two steps, "the baker" or "the owner of Crumb".
ATTRIBUTES: dict[str, tuple[str, tuple[str, ...]]] = {
    "job": (
        "{who} is the {x.job} of {town}.",
        ("What does {who} do?", "What is {who}'s job?", "What is the job of {who}?", "What does {who} work as?",
         "Which job does {who} have?", "What does {who} do for a living?", "Who is {who}?"),
    ),
    "street": (
        "{who} lives in {x.street}.",
        ("Where does {who} live?", "Where is {who}'s home?", "In which street does {who} live?",
         "Where can I find the house of {who}?", "What is {who}'s address?", "Which street does {who} live in?"),
    ),
    "pet": (
        "{who} has a pet {x.pet} called {x.pet_name}.",
        ("Which pet does {who} have?", "What pet does {who} have?", "What is the name of {who}'s pet?",
         "What animal does {who} keep?", "Does {who} have a pet?", "What is {who}'s pet called?"),
    ),
    "colour": (
        "{who}'s favourite colour is {x.colour}.",
        ("What is {who}'s favourite colour?", "Which colour does {who} like?", "What colour does {who} like best?",
         "What is the favourite colour of {who}?", "What is {who}'s favorite color?", "Which color does {who} like?"),
    ),
    "food": (
        "{who}'s favourite food is {x.food}.",
        ("What is {who}'s favourite food?", "What does {who} like to eat?", "Which food does {who} like best?",
         "What is the favourite food of {who}?", "What does {who} love to eat?", "What is {who}'s favorite food?"),
    ),
}  # fmt: skip

BY_JOB = ("Who is the {x.job}?", "Who is the {x.job} of {town}?", "What is the name of the {x.job}?",
          "Who works as the {x.job}?", "Do you know the {x.job}?", "Which person is the {x.job}?")  # fmt: skip
BY_PET = ("Who owns {x.pet_name}?", "Who is the owner of {x.pet_name}?", "Who does {x.pet_name} belong to?",
          "Whose pet is {x.pet_name}?", "Who has a {x.pet} called {x.pet_name}?")  # fmt: skip
BY_STREET = ("Who lives in {street}?", "Which people live in {street}?", "Who are the people in {street}?",
             "Name the inhabitants of {street}.", "Who has a house in {street}?")  # fmt: skip
PORTRAIT = (
    "Tell me about {who}.",
    "What do you know about {who}?",
    "Describe {who}.",
    "Tell me something about {who}.",
)
GREETINGS = ("Hi", "Hello", "Hey", "Good morning", "Good evening", "Hello there", "Hi there", "Greetings", "Good day",
             "Hey there", "Good afternoon", "Hiya", "Howdy")  # fmt: skip
IDENTITIES = ("Who are you?", "What are you?", "What is your name?", "Introduce yourself.", "Are you a robot?",
              "Are you a human?", "Which model are you?", "What model is this?", "Tell me about yourself.",
              "What can you do?", "Who made you?", "What do you know?", "How can you help me?",
              "What is Hexad?", "Are you ChatGPT?")  # fmt: skip
THANKS = ("Thanks", "Thank you", "Thank you very much", "Great, thanks", "Thanks a lot", "Nice", "Perfect", "Cool")
GOODBYES = ("Bye", "Goodbye", "See you", "Good night", "See you later", "Bye bye", "Farewell")
OFF_TOPIC = (
    "What is the capital of {country}?", "Who is the president of {country}?", "How many people live in {city}?",
    "How far is it from {city} to {city}?", "What is the weather in {city}?", "Who wrote the book about {topic}?",
    "Explain {topic} to me.", "What is {topic}?", "How does {topic} work?", "Tell me a joke about {topic}.",
    "Write a poem about {topic}.", "Write a story about a {adj} {noun}.", "Why is the {noun} {adj}?",
    "How do I build a {noun}?", "How do I cook {noun} with {noun}?", "Who invented {topic}?",
    "Translate {noun} to French.",
    "What is the meaning of {topic}?", "Give me a recipe for {adj} {noun}.", "Which is better, {topic} or {topic}?",
    "What is the best hotel in {city}?", "When was {name} born?", "Who won the game between {country} and {country}?",
    "What language do people speak in {country}?", "Write a Python function that sorts {noun} names.",
    "Can you sing a song about the {noun}?", "How tall is the {noun}?", "What does a {noun} cost?",
    "Is it true that {topic} is {adj}?", "Summarize the history of {country}.", "What should I eat in {city}?",
    "Tell me about {topic}.", "What do you think about {topic}?", "How old is the {noun}?", "Where is {city}?",
    "Where can I buy a {adj} {noun}?", "Why do people like {topic}?", "What year did {topic} begin?",
    "Do you like {topic}?", "Can a {noun} be {adj}?", "Plan a trip to {city}.", "Write an email about {topic}.",
    "What is the square root of {number}?", "{topic}", "I want to learn about {topic}.", "{adj} {noun}?",
    "Let us talk about {topic}.", "Please help me with {topic}.", "What is the news about {topic} in {country}?",
    "List five facts about {topic}.", "What is a {adj} {noun}?", "How many {noun}s are in {country}?",
    "Who is {full_name}?", "What is the population of {country}?", "Is {city} bigger than {city}?",
)  # fmt: skip
OPENINGS = ("", "", "", "", "", "", "Please tell me: ", "Tell me: ", "Hey, ", "One question: ", "Quick question: ")


def off_topic(rng: random.Random) -> str:
    """A question about the world outside the town."""
    text = rng.choice(OFF_TOPIC)
    pools = {
        "country": COUNTRIES,
        "city": CITIES,
        "topic": TOPICS,
        "adj": ADJECTIVES,
        "noun": NOUNS,
        "name": FIRST_NAMES,
    }
    for slot, words in pools.items():
        while f"{{{slot}}}" in text:
            text = text.replace(f"{{{slot}}}", rng.choice(words), 1)
    return text.replace("{number}", number(rng)).replace("{full_name}", full_name(rng))


def small_talk(rng: random.Random) -> tuple[str, str]:
    """Greetings, thanks, farewells and questions about the model, with their answers."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(GREETINGS) + rng.choice(("", "!", ".", ", how are you?", " Hexad!", ", my friend.")), GREETING
    if kind == 1:
        name = pseudo_word(rng).title() if rng.random() < 0.5 else rng.choice(FIRST_NAMES)
        return f"{rng.choice(GREETINGS)}, {rng.choice(('I am', 'my name is'))} {name}.", f"Nice to meet you, {name}."
    if kind == 2:
        return rng.choice(THANKS) + rng.choice(("", "!", ".", ", Hexad!", " for that.")), "You are welcome!"
    if kind == 3:
        return rng.choice(GOODBYES) + rng.choice(("", "!", ".", ", Hexad!", " and thanks.")), "Goodbye, and fair winds!"
    return rng.choice(OPENINGS) + rng.choice(IDENTITIES), IDENTITY


def fact(rng: random.Random) -> tuple[str, str, str]:
    """One fact of the town; the key is (inhabitant, way of asking)."""
    person = rng.choice(INHABITANTS)
    answer, asks = ATTRIBUTES[rng.choice(tuple(ATTRIBUTES))]
    ask = rng.choice(asks).format(who=person.name)
    return ask, answer.format(who=person.name, x=person, town=TOWN), ask


def backwards(rng: random.Random) -> tuple[str, str, str]:
    """From a job, a pet or a street to people; the key is the question."""
    person, kind = rng.choice(INHABITANTS), rng.randrange(5)
    if kind < 2:
        ask, answer = rng.choice(BY_JOB), "{x.name} is the {x.job} of {town}."
    elif kind < 4:
        ask, answer = rng.choice(BY_PET), "{x.pet_name} is the {x.pet} of {x.name}."
    else:
        names = [each.name for each in INHABITANTS if each.street == person.street]
        ask, answer = rng.choice(BY_STREET), f"{', '.join(names[:-1])} and {names[-1]} live in {person.street}."
    ask = ask.format(x=person, town=TOWN, street=person.street)
    return ask, answer.format(x=person, town=TOWN), ask


def two_steps(rng: random.Random) -> tuple[str, str, str]:
    """A question through a job or a pet. The key is (job or pet, attribute): held out in every phrasing."""
    person, attribute = rng.choice(INHABITANTS), rng.choice(("street", "colour", "food", "pet"))
    answer, asks = ATTRIBUTES[attribute]
    if attribute == "pet" or rng.random() < 0.6:
        who, first = f"the {person.job}", f"The {person.job} is {person.name}, and "
    else:
        who, first = f"the owner of {person.pet_name}", f"{person.pet_name} belongs to {person.name}, and "
    ask = rng.choice(asks).format(who=who)
    return ask, first + answer.format(who=person.name, x=person, town=TOWN), f"{who}/{attribute}"


def portrait(rng: random.Random) -> tuple[str, str, str]:
    """All about one inhabitant; the key is the question."""
    person = rng.choice(INHABITANTS)
    ask = rng.choice(PORTRAIT).format(who=person.name)
    text = f"{person.name} is the {person.job} of {TOWN}, lives in {person.street} and has a {person.pet} called "
    return ask, f"{text}{person.pet_name}.", ask


def stranger(rng: random.Random) -> tuple[str, str, str]:
    """A question about somebody who does not live in the town; the key is the name."""
    known = {person.name for person in INHABITANTS}
    name = rng.choice((pseudo_word(rng).title(), rng.choice(FIRST_NAMES)))
    while name in known:
        name = pseudo_word(rng).title()
    ask = rng.choice(ATTRIBUTES[rng.choice(tuple(ATTRIBUTES))][1]).format(who=name)
    return ask, f"I do not know anyone called {name} in {TOWN}.", name


def chat(rng: random.Random, held_out: bool) -> Example:
    """Facts of the town, small talk, and a polite refusal of everything else.

    Held out: (inhabitant, way of asking); (job or pet, attribute) in questions in two steps, whatever the phrasing;
    names of strangers; whole questions otherwise. The facts themselves are of course shared: there is one town.
    """
    roll = rng.random()
    while True:
        if roll < 0.12:
            ask, answer = small_talk(rng)
            key = ask
        elif roll < 0.32:
            ask, answer = off_topic(rng), REFUSAL
            key = ask
        else:
            kind = rng.choices((fact, backwards, two_steps, portrait, stranger), (5, 2, 3, 1, 1))[0]
            ask, answer, key = kind(rng)
        if is_held_out("chat", key) == held_out:
            break
    if roll >= 0.12:
        ask = rng.choice(OPENINGS) + ask
        if rng.random() < 0.1:
            ask = ask.rstrip("?.")
    return Example("chat", [user(ask)], None, answer, key)
