"""System prompts, and what they do to the replies: other names, other manners, one word, a secret."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from .generic import COMMON_WORDS
from .turns import Exchange, Turn, a, capital, invented, rules, say, table
from .world import ANIMALS, BOT_NAMES, COLOUR_NAMES, FOODS, OBJECTS

KINDS = ["helpful", "kind", "friendly", "good", "polite", "useful", "small", "smart"]
PLAIN = (
    "You are {helpful} assistant.",
    "(You are|You're) {helpful} (assistant|helper|chatbot|model)(.|. Answer the user.|. Help the user.|. Be brief.)",
    "(Answer|Help) the user(.| in a kind way.)",
)
NAMING = (
    "Your name is {name}.",
    "You are {name}.",
    "You are called {name}.",
    "Call yourself {name}.",
    "You are {helpful} assistant (called|named) {name}.",
    "You are a helper with the name {name}.",
    "You are {name}, {helpful} assistant.",
)
ONE_WORD = "(Answer|Reply|Always answer|Please answer|You answer|Only answer) (in|with) (one|a single|only one) word."
IN_ONE_WORD = "(Answer in one word:|In one word:|Answer with one word:|Use only one word.)"
PART = "(You are|You're|Act as|Act like|Talk like|Speak like|Answer like) {part}(.| from {home}.)"
STARTING = "(Start|Begin|Always start|You start) (every|each) (answer|reply) with {word}."
ENDING = "(End|Finish|Always end|You end) (every|each) (answer|reply) with {word}."

# role | where from | before the reply | after the reply
ROLES = table("""
pirate | the sea | Arr, matey! |
robot | the future | Beep. | Boop.
cat | the farm | Meow! |
teacher | the school | Good question! |
wizard | the tower | By my hat! |
king | the castle | My dear subject! |
""")

SECRETS = rules("""
(What is|What's|Tell me|Do you know) the secret word?
= The secret word is {x}. [{x}]

What do I like?
Do you know what I like?
Tell me what I like.
= You like {x}. [{x}]

What do we talk about(| today)?
What is the topic(| of today)?
= Today we talk about {x}. [{x}]
""")
SECRET_PROMPTS = ["The secret word is {x}.", "The user likes {x}.", "Today we talk about {x}."]


class Manner(NamedTuple):
    """What a system prompt changes in the replies."""

    before: str = ""
    after: str = ""
    role: str = "language model"
    name: str = "Tiny"

    def applied(self, exchange: Exchange) -> Exchange:
        """The exchange as somebody else would speak it."""
        turns = []
        for user, reply, word in exchange:
            spoken = reply.replace("language model", self.role).replace("Tiny", self.name)
            spoken = " ".join(part for part in (self.before, spoken, self.after) if part)
            turns.append(Turn(user.replace("Tiny", self.name), spoken, word.replace("Tiny", self.name)))
        return turns


def manner(rng: Random, exchange: Exchange) -> tuple[str, Exchange]:
    """Draw a system prompt; returns it with the replies that it asks for."""
    helpful = a(rng.choice(KINDS))
    name = say(rng, invented(rng)) if rng.random() < 0.3 else rng.choice(BOT_NAMES)
    naming = say(rng, rng.choice(NAMING), name=name, helpful=helpful)
    role, home, before, after = rng.choice(ROLES)
    part = say(rng, PART, part=a(role), home=home)
    kind = rng.random()
    if kind < 0.2:
        return say(rng, rng.choice(PLAIN), helpful=helpful), exchange
    if kind < 0.45:
        return naming, Manner(name=name).applied(exchange)
    if kind < 0.53:
        system = rng.choice([f"{part} {naming}", f"{naming} {part}"])
        return system, Manner(before, after, role, name).applied(exchange)
    if kind < 0.7:
        return part, Manner(before, after, role).applied(exchange)
    if kind < 0.87 and all(turn.word for turn in exchange):
        if rng.random() < 0.3:
            return f"{naming} {say(rng, ONE_WORD)}", Manner(name=name).applied(_shortened(exchange, name))
        return say(rng, ONE_WORD), _shortened(exchange)
    return _fixed_word(rng, exchange)


def _shortened(exchange: Exchange, name: str = "Tiny") -> Exchange:
    return [Turn(user, capital(word.replace("Tiny", name)) + ".", word) for user, _, word in exchange]


def _fixed_word(rng: Random, exchange: Exchange) -> tuple[str, Exchange]:
    """A prompt that sets the first or the last word of each reply, with any word."""
    word = capital(rng.choice([*COMMON_WORDS, *COLOUR_NAMES, *OBJECTS, *(row[0] for row in ANIMALS)]))
    if rng.random() < 0.5:
        return say(rng, STARTING, word=word), Manner(before=f"{word}!").applied(exchange)
    return say(rng, ENDING, word=word), Manner(after=f"{word}!").applied(exchange)


def one_word(rng: Random, exchange: Exchange) -> Exchange:
    """The same wish, but said in the question."""
    return [turn._replace(user=f"{say(rng, IN_ONE_WORD)} {turn.user}") for turn in _shortened(exchange)]


def secret(rng: Random) -> tuple[str, Exchange]:
    """A fact that only the system prompt holds."""
    word = rng.choice([*COLOUR_NAMES, *OBJECTS, *(row[0] for row in FOODS), *(row[0] for row in ANIMALS)])
    rule, prompt = rng.choice(list(zip(SECRETS, SECRET_PROMPTS, strict=True)))
    system = prompt.format(x=word)
    if rng.random() < 0.5:
        system = f"{say(rng, PLAIN[0], helpful=a(rng.choice(KINDS)))} {system}"
    return system, [rule.turn(rng, x=word)]
