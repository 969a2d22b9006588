"""Answers that stand in the conversation itself: short texts, and things that the user said before."""

from __future__ import annotations

from random import Random

from .turns import Exchange, Turn, a, pick, say
from .world import ANIMALS, COLOUR_NAMES, FOODS, NAMES, OBJECTS, PET_NAMES, PLACES

CITIES = "Paris Rome London Berlin Madrid Tokyo Oslo Vienna Lisbon Athens Cairo Dublin".split()
NUMBER_WORDS = "two three four five six seven eight nine ten".split()


def where(rng: Random) -> Exchange:
    """Two people in two places."""
    one, two = pick(rng, NAMES, 2)
    here, there = pick(rng, PLACES, 2)
    verb = rng.choice(["is in", "sits in", "went to", "plays in"])
    who, place = rng.choice([(one, here), (two, there)])
    text = f"{one} {verb} the {here}. {two} {verb} the {there}."
    if rng.random() < 0.3:
        return [Turn(say(rng, "{t} Who {v} the {p}?", t=text, v=verb, p=place), f"{who} {verb} the {place}.", who)]
    return [Turn(say(rng, "{t} (Where is {n}|Where is {n} now|In which place is {n})?", t=text, n=who), f"{who} is in the {place}.", place)]


def having(rng: Random) -> Exchange:
    """Who has which thing, of which colour."""
    one, two = pick(rng, NAMES, 2)
    red, blue = pick(rng, [colour for colour in COLOUR_NAMES if colour != "orange"], 2)
    ball, box = pick(rng, OBJECTS, 2)
    text = f"{one} has a {red} {ball}. {two} has a {blue} {box}."
    who, colour, thing = rng.choice([(one, red, ball), (two, blue, box)])
    return [Turn(f"{text} {question}", reply, word) for question, reply, word in [rng.choice([
        (f"What colour is the {thing}?", f"The {thing} is {colour}.", colour),
        (f"Who has the {thing}?", f"{who} has the {thing}.", who),
        (f"What does {who} have?", f"{who} has a {colour} {thing}.", thing),
        (f"What is {colour}?", f"The {thing} is {colour}.", thing),
    ])]]


def order(rng: Random) -> Exchange:
    """Comparisons and gifts."""
    one, two = pick(rng, NAMES, 2)
    if rng.random() < 0.5:
        more, less = rng.choice([("taller", "smaller"), ("older", "younger"), ("faster", "slower"), ("stronger", "weaker")])
        word, who = rng.choice([(more, one), (less, two)])
        return [Turn(f"{one} is {more} than {two}. Who is {word}?", f"{who} is {word}.", who)]
    thing = rng.choice(OBJECTS)
    text = f"{one} gave the {thing} to {two}."
    return [rng.choice([
        Turn(f"{text} Who has the {thing} now?", f"{two} has the {thing} now.", two),
        Turn(f"{text} Who gave the {thing}?", f"{one} gave the {thing}.", one),
        Turn(f"{text} What did {one} give to {two}?", f"{one} gave the {thing} to {two}.", thing),
    ])]


def memory(rng: Random) -> tuple[Exchange, Exchange]:
    """Something that the user tells, and the question for it, which may come some turns later."""
    name, pet, animal = rng.choice(NAMES), rng.choice(PET_NAMES), rng.choice(ANIMALS)[0]
    colour, food, city, age = rng.choice(COLOUR_NAMES), rng.choice(FOODS)[1], rng.choice(CITIES), rng.choice(NUMBER_WORDS)
    relative = rng.choice(["brother", "sister", "friend", "mother", "father", "teacher"])
    told, reply, asked, answer, word = rng.choice([
        ("My favourite colour is {x}.", "That is a good choice. I like {x} too.", "(What is|What's|Do you know|Tell me) my favourite colour?", "Your favourite colour is {x}.", colour),
        ("My favourite food is {x}.", "That is a good choice. I like {x} too.", "(What is|What's|Do you know|Tell me) my favourite food?", "Your favourite food is {x}.", food),
        ("My {r} is called {x}.", "{x} is a nice name.", "(What is my {r} called|What is the name of my {r}|Do you know the name of my {r})?", "Your {r} is called {x}.", name),
        ("I have {an} called {x}.", "{x} is a nice name for {an}.", "(What is my {p} called|What is the name of my {p}|How is my {p} called)?", "Your {p} is called {x}.", pet),
        ("I live in {x}.", "I think that {x} is a nice place.", "(Where do I live|Do you know where I live|In which city do I live)?", "You live in {x}.", city),
        ("I am {x} years old.", "That is a good age.", "(How old am I|What is my age|Do you know my age)?", "You are {x} years old.", age),
        ("(My name is|I am|I'm) {n}.", "Nice to meet you, {n}! How can I help you?", "(What is my name|What's my name|Who am I|Do you know my name)?", "Your name is {n}.", name),
    ])
    slots = {"x": word, "n": name, "r": relative, "p": animal, "an": a(animal)}
    return ([Turn(say(rng, told, **slots), say(rng, reply, **slots))], [Turn(say(rng, asked, **slots), say(rng, answer, **slots), word)])


def recall(rng: Random) -> Exchange:
    """Told and asked at once."""
    told, asked = memory(rng)
    return told + asked


def forgotten(rng: Random) -> Exchange:
    """Asked for something that was never told. corpus.py puts it first, before anything was said."""
    user = say(rng, "(What is my name|What's my name|How old am I|What is my favourite colour|Where do I live|What is my dog called|What is my favourite food|Do you know my name|Do you know where I live)?")
    return [Turn(user, "You did not tell me that.")]
