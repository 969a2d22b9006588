"""Answers that stand in the conversation itself: short texts, and things that the user said before."""

from __future__ import annotations

from random import Random

from .talk import ASK_NAME, person
from .turns import Exchange, Turn, a, invented, pick, rules, say, word_list
from .world import ANIMALS, COLOUR_NAMES, FOODS, OBJECTS, PET_NAMES, PLACES

CITIES = word_list("Paris Rome London Berlin Madrid Tokyo Oslo Vienna Lisbon Athens Cairo Dublin")
NUMBER_WORDS = word_list("two three four five six seven eight nine ten")
RELATIVES = word_list("brother sister friend mother father teacher uncle aunt")
COMPARATIVES = [("taller", "smaller"), ("older", "younger"), ("faster", "slower"), ("stronger", "weaker")]

WHERE = rules("""
{text} Where is {name}(| now)?
{text} In which place is {name}?
= {name} is in the {place}. [{place}]

{text} Who {verb} the {place}?
= {name} {verb} the {place}. [{name}]
""")

HAVING = rules("""
{text} What colour is the {thing}?
= The {thing} is {colour}. [{colour}]

{text} Who has the {thing}?
= {name} has the {thing}. [{name}]

{text} What does {name} have?
= {name} has {a_colour} {thing}. [{thing}]

{text} What is {colour}?
= The {thing} is {colour}. [{thing}]
""")

GIVING = rules("""
{one} gave the {thing} to {two}. Who has the {thing} now?
= {two} has the {thing} now. [{two}]

{one} gave the {thing} to {two}. Who gave the {thing}?
= {one} gave the {thing}. [{one}]

{one} gave the {thing} to {two}. What did {one} give to {two}?
= {one} gave the {thing} to {two}. [{thing}]
""")

COMPARED = rules("""
{one} is {more} than {two}. Who is {word}?
If {one} is {more} than {two}, who is {word}?
= {name} is {word}. [{name}]
""")[0]

# Each two rules: what the user tells, and the question for it. `{x}` is what has to be remembered.
FACTS = {
    "colour": rules("""
My favourite colour is {x}.
= That is a good choice. I like {x} too.

(What is|What's|Do you know|Do you remember) my favourite colour?
Tell me my favourite colour.
= Your favourite colour is {x}. [{x}]
"""),
    "food": rules("""
My favourite food is {x}.
= That is a good choice. I like {x} too.

(What is|What's|Do you know|Do you remember) my favourite food?
Tell me my favourite food.
= Your favourite food is {x}. [{x}]
"""),
    "person": rules("""
My {relative} is called {x}.
The name of my {relative} is {x}.
= {x} is a nice name.

What is my {relative} called?
(What is|What's|Do you know) the name of my {relative}?
(What is|What's) my {relative}'s name?
= Your {relative} is called {x}. [{x}]
"""),
    "pet": rules("""
I have {a_pet} called {x}.
My {pet} is called {x}.
The name of my {pet} is {x}.
= {x} is a nice name for {a_pet}.

What is my {pet} called?
(What is|What's|Do you know) the name of my {pet}?
(What is|What's) my {pet}'s name?
= Your {pet} is called {x}. [{x}]
"""),
    "city": rules("""
I live in {x}.
My home is in {x}.
= I think that {x} is a nice place.

Where do I live?
Do you know where I live?
In which city do I live?
= You live in {x}. [{x}]
"""),
    "age": rules("""
I am {x} years old.
I'm {x} years old.
= That is a good age.

How old am I?
What is my age?
Do you know my age?
= You are {x} years old. [{x}]
"""),
    "name": rules(f"""
(My name is|I am|I'm) {{x}}.
= Nice to meet you, {{x}}! How can I help you?

{ASK_NAME}
= Your name is {{x}}. [{{x}}]
"""),
}

FORGOTTEN = rules("""
(What is|What's|Do you know) my (name|age|favourite colour|favourite food)?
How old am I?
Who am I?
Where do I live?
What is my (dog|cat|brother|sister) called?
= You did not tell me that.
""")[0]


def where(rng: Random) -> Exchange:
    """Two people in two places."""
    one, two = person(rng), person(rng)
    here, there = pick(rng, PLACES, 2)
    verb = rng.choice(["is in", "is in", "sits in", "plays in"])
    name, place = rng.choice([(one, here), (two, there)])
    text = f"{one} {verb} the {here}. {two} {verb} the {there}."
    return [rng.choice(WHERE).turn(rng, text=text, name=name, place=place, verb=verb)]


def having(rng: Random) -> Exchange:
    """Who has which thing, of which colour; one person or two."""
    names = [person(rng) for _ in range(rng.choice([1, 2, 2]))]
    colours, things = pick(rng, COLOUR_NAMES, 2), pick(rng, OBJECTS, 2)
    rows = list(zip(names, colours, things, strict=False))
    text = " ".join(f"{name} has {a(colour)} {thing}." for name, colour, thing in rows)
    name, colour, thing = rng.choice(rows)
    return [rng.choice(HAVING).turn(rng, text=text, name=name, colour=colour, a_colour=a(colour), thing=thing)]


def order(rng: Random) -> Exchange:
    """Comparisons and gifts."""
    one, two = person(rng), person(rng)
    if rng.random() < 0.5:
        more, less = rng.choice(COMPARATIVES)
        word, name = rng.choice([(more, one), (less, two)])
        return [COMPARED.turn(rng, one=one, two=two, more=more, word=word, name=name)]
    return [rng.choice(GIVING).turn(rng, one=one, two=two, thing=rng.choice(OBJECTS))]


def memory(rng: Random) -> tuple[Turn, Turn]:
    """Something that the user tells, and the question for it, which may come some turns later."""
    kind = rng.choice(list(FACTS))
    pet = rng.choice(ANIMALS)[0]
    choices = {"colour": COLOUR_NAMES, "food": [row[1] for row in FOODS], "pet": PET_NAMES, "age": NUMBER_WORDS}
    known = person(rng) if kind in ("person", "name") else rng.choice(choices.get(kind, CITIES))
    if kind in ("pet", "city") and rng.random() < 0.25:
        known = say(rng, invented(rng))
    if kind == "age" and rng.random() < 0.5:
        known = str(rng.randint(5, 90))
    slots = {"x": known, "pet": pet, "a_pet": a(pet), "relative": rng.choice(RELATIVES)}
    told, asked = FACTS[kind]
    return told.turn(rng, **slots), asked.turn(rng, **slots)


def recall(rng: Random) -> Exchange:
    """Told and asked at once; sometimes two things are told first."""
    told, asked = memory(rng)
    return [told, asked]


def forgotten(rng: Random) -> Exchange:
    """Asked for something that was never told. corpus.py puts it first, before anything was said."""
    return [FORGOTTEN.turn(rng)]
