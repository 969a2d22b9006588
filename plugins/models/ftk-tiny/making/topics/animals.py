"""Animals: what they say, eat and can do, one question at a time or as a small conversation."""

from __future__ import annotations

from random import Random

from .turns import Exchange, Rule, Turn, a, pick, rules
from .world import ANIMALS

FOLLOW = ("And {x}?", "What about {x}?", "How about {x}?", "And what about {x}?")

SILENT = Rule((), "{x} makes no sound.", "Nothing")
QUESTIONS = rules("""
What sound does {x} make?
What does {x} say?
Which sound does {x} make?
What noise does {x} make?
What sound do {xs} make?
How does {x} sound?
Tell me the sound of {x}.
= {x} says {sound}. [{sound}]

Where does {x} live?
Where do {xs} live?
What is the home of {x}?
Where can I find {x}?
In what place does {x} live?
= {x} lives {home}. [{home_word}]

What does {x} eat?
What do {xs} eat?
What do {xs} like to eat?
What is the food of {x}?
What can I feed {x}?
= {x} eats {food}. [{food_word}]

How many legs does {x} have?
How many legs do {xs} have?
How many legs has {x}?
Tell me how many legs {x} has.
= {x} has {legs} legs. [{legs}]

Is {x} big or small?
Are {xs} big or small?
How big is {x}?
What size is {x}?
What is the size of {x}?
= {x} is {size}. [{size}]

What covers {x}?
What does {x} have on its body?
What is on the body of {x}?
What is {x} covered with?
= {x} has {cover}. [{cover_word}]

What is a baby {n} called?
What is the young of {x} called?
What do you call a baby {n}?
What is the name for a baby {n}?
= A baby {n} is called {young}. [{young_word}]

What can {x} do?
What can {xs} do?
What are {xs} good at?
What is {x} good at?
= {x} can {can}. [{can}]
""")

ABOUT = rules("""
Tell me (something|a bit|more|) about {xs}.
What do you know about {xs}?
What is {x}?
What are {xs}?
Describe {x}.
Do you know {xs}?
Can you tell me (something|) about {xs}?
Talk about {xs}.
= {x} is a {size} animal. It lives {home} and eats {food}. [Animal]
""")[0]

# The same answers, asked for by a pronoun.
PRONOUNS = rules("""
Where does it live?
Where is its home?
Where do they live?
= {x} lives {home}. [{home_word}]

What does it eat?
What do they eat?
What is its food?
= {x} eats {food}. [{food_word}]

How many legs does it have?
How many legs do they have?
= {x} has {legs} legs. [{legs}]

What sound does it make?
What does it say?
= {x} says {sound}. [{sound}]

What is its baby called?
What is a baby one called?
= A baby {n} is called {young}. [{young_word}]

Can (it|they) {can}?
= Yes, {x} can {can}. [Yes]

Can (it|they) {cannot}?
= No, {x} cannot {cannot}. [No]
""")

ABLE, UNABLE = rules("""
Can {x} {can}?
Can {xs} {can}?
Is {x} able to {can}?
Do you think that {x} can {can}?
= Yes, {x} can {can}. [Yes]

Can {x} {cannot}?
Can {xs} {cannot}?
Is {x} able to {cannot}?
Do you think that {x} can {cannot}?
= No, {x} cannot {cannot}. [No]
""")


def slots(row: list[str]) -> dict[str, str]:
    """What the patterns call the columns of an animal."""
    name, plural, sound, home, food, legs, size, cover, young, can, cannot = row
    whole = {"n": name, "x": a(name), "xs": plural, "sound": sound, "home": home, "food": food, "legs": legs}
    whole |= {"size": size, "cover": cover, "young": a(young), "can": can, "cannot": cannot}
    lasts = {"home": home, "food": food, "cover": cover, "young": young}
    return whole | {f"{column}_word": text.split()[-1] for column, text in lasts.items()}


def _voiced(rule: Rule, row: list[str]) -> Rule:
    """The rule, or its other answer for an animal without a voice."""
    return SILENT._replace(asks=rule.asks) if row[2] == "nothing" and "{sound}" in rule.reply else rule


def fact(rng: Random) -> Exchange:
    """One property of one animal, often followed by the same question about others, by ellipsis."""
    rule = rng.choice(QUESTIONS)
    first, *others = pick(rng, ANIMALS, rng.choice([1, 1, 2, 2, 3]))
    exchange = [_voiced(rule, first).turn(rng, **slots(first))]
    return exchange + [_voiced(rule, row).follow(rng, FOLLOW, **slots(row)) for row in others]


def conversation(rng: Random) -> Exchange:
    """Two sentences about an animal, or one property of it, then questions that only say `it`."""
    row = rng.choice(ANIMALS)
    opener = ABOUT if rng.random() < 0.6 else rng.choice(QUESTIONS)
    more = pick(rng, PRONOUNS, rng.choice([0, 1, 1, 2]))
    return [_voiced(rule, row).turn(rng, **slots(row)) for rule in [opener, *more]]


def ability(rng: Random) -> Exchange:
    """Can a bird fly? Can a cow?"""
    exchange: list[Turn] = []
    for row in pick(rng, ANIMALS, rng.choice([1, 1, 2])):
        rule, verb = rng.choice([(ABLE, "{can}"), (UNABLE, "{cannot}")])
        asks = [f"(And can|Can) {{x}} {verb}?"] if exchange else rule.asks
        exchange.append(rule.follow(rng, asks, **slots(row)))
    return exchange
