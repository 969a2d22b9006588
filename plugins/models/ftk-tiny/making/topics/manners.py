"""System prompts, and what they do to the replies: other names, other manners, one word, a secret."""

from __future__ import annotations

from random import Random

from .generic import COMMON_WORDS
from .turns import Exchange, Turn, capital, say
from .world import ANIMALS, BOT_NAMES, COLOUR_NAMES, FOODS, OBJECTS

PLAIN = ("(You are|You're) a (helpful|kind|friendly|good|polite|useful|small|smart|) (assistant|helper|chatbot|model)"
         "(.|. Answer the user.|. Help the user.| that answers questions.|. Be brief.)")

# role word | system prompt | before the reply | after the reply
ROLES = [
    ("pirate", "(You are|You're|Act as|Talk like|Speak like|Answer like) a pirate(.| from the sea.)", "Arr, matey! ", ""),
    ("robot", "(You are|You're|Act as|Talk like|Speak like|Answer like) a robot(.| from the future.)", "Beep. ", " Boop."),
    ("cat", "(You are|You're|Act as|Talk like|Speak like|Answer like) a (little |)cat.", "Meow! ", ""),
    ("teacher", "(You are|You're|Act as|Talk like|Speak like|Answer like) a (good |)teacher.", "Good question! ", ""),
    ("wizard", "(You are|You're|Act as|Talk like|Speak like|Answer like) a (wise |old |)wizard.", "By my hat! ", ""),
    ("king", "(You are|You're|Act as|Talk like|Speak like|Answer like) a king.", "My dear subject, ", ""),
]
NAMING = ("(Your name is {n}.|You are {n}.|You are called {n}.|You are a (helpful |kind |) assistant called {n}.|"
          "You are a helper with the name {n}.|Call yourself {n}.|You are {n}, a (helpful|friendly|small) assistant.)")
ONE_WORD = ("(Answer|Reply|Always answer|Please answer|You answer|Only answer) (in|with) (one|a single|only one) word.")


def _changed(exchange: Exchange, before: str = "", after: str = "", role: str = "", name: str = "") -> Exchange:
    """The exchange as somebody else would speak it."""
    turns = []
    for turn in exchange:
        user, reply = turn.user, turn.reply
        if role:
            reply = reply.replace("language model", role)
        if name:
            user, reply = user.replace("Tiny", name), reply.replace("Tiny", name)
        turns.append(Turn(user, before + reply + after, turn.word))
    return turns


def _fixed_word(rng: Random) -> tuple[str, str, str]:
    """A prompt that sets the first or the last word of each reply, with any word."""
    word = capital(rng.choice(COMMON_WORDS + COLOUR_NAMES + OBJECTS + [row[0] for row in ANIMALS]))
    if rng.random() < 0.5:
        return say(rng, "(Start|Begin|Always start|You start) (every|each) (answer|reply) with {w}.", w=word), f"{word}! ", ""
    return say(rng, "(End|Finish|Always end|You end) (every|each) (answer|reply) with {w}.", w=word), "", f" {word}!"


def manner(rng: Random, exchange: Exchange) -> tuple[str, Exchange]:
    """Draw a system prompt; returns it with the replies that it asks for."""
    kind = rng.random()
    if kind < 0.2:
        return say(rng, PLAIN).replace("a  ", "an "), exchange
    if kind < 0.45:
        name = rng.choice(BOT_NAMES)
        return say(rng, NAMING, n=name).replace("a  assistant", "an assistant"), _changed(exchange, name=name)
    if kind < 0.7:
        role, prompt, before, after = rng.choice(ROLES)
        if kind < 0.53:
            name = rng.choice(BOT_NAMES)
            first, second = say(rng, prompt), f"Your name is {name}."
            system = f"{first} {second}" if rng.random() < 0.5 else f"{second} {first}"
            return system, _changed(exchange, before, after, role, name)
        return say(rng, prompt), _changed(exchange, before, after, role)
    if kind < 0.87 and all(turn.word for turn in exchange):
        return say(rng, ONE_WORD), [Turn(turn.user, capital(turn.word) + ".", turn.word) for turn in exchange]
    system, before, after = _fixed_word(rng)
    return system, _changed(exchange, before, after)


def one_word(rng: Random, exchange: Exchange) -> Exchange:
    """The same wish, but said in the question."""
    ask = say(rng, "(Answer in one word:|In one word:|Answer with one word:|Use only one word.)")
    return [Turn(f"{ask} {turn.user}", capital(turn.word) + ".", turn.word) for turn in exchange]


def secret(rng: Random) -> tuple[str, Exchange]:
    """A fact that only the system prompt holds."""
    word = rng.choice(COLOUR_NAMES + OBJECTS + [row[0] for row in FOODS] + [row[0] for row in ANIMALS])
    kind, question, reply = rng.choice([
        ("The secret word is {w}.", "(What is the secret word|Tell me the secret word|Do you know the secret word|What's the secret word)?", "The secret word is {w}."),
        ("The user likes {w}.", "(What do I like|Do you know what I like|Tell me what I like)?", "You like {w}."),
        ("Today we talk about {w}.", "(What do we talk about|What is the topic|What do we talk about today)?", "Today we talk about {w}."),
    ])
    system = say(rng, f"({PLAIN.split('(.|')[0]}. |){kind}", w=word).replace("a  ", "an ")
    return system, [Turn(say(rng, question), reply.format(w=word), word)]
