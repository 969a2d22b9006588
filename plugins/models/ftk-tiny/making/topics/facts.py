"""Questions about the other things of the world: colours, food, capitals, family, body, weather, definitions."""

from __future__ import annotations

from random import Random

from .animals import FOLLOW
from .turns import Exchange, a, capital, either, listing, pick, rules
from .world import (
    BODY,
    CAPITALS,
    COLOUR_NAMES,
    COLOURS,
    DEFINITIONS,
    FAMILY,
    FOODS,
    KINDS,
    MIXES,
    SEASONS,
    WEATHER,
)

COLOUR_OF, IS_COLOUR, IS_NOT_COLOUR, OF_COLOUR, MIXED = rules("""
(What|Which) (colour|color) is {x}?
What is the (colour|color) of {x}?
What (colour|color) does {x} have?
Tell me the colour of {x}.
= {x} is {colour}. [{colour}]

Is {x} {colour}?
Is the colour of {x} {colour}?
Would you say that {x} is {colour}?
= Yes, {x} is {colour}. [Yes]

Is {x} {other}?
Is the colour of {x} {other}?
Would you say that {x} is {other}?
= No, {x} is {colour}. [No]

(Name|Tell me|Give me) (something|a thing|a thing that is) {colour}.
What is {colour}?
Which things are {colour}?
= {x} is {colour}. [{x_word}]

What do you get when you mix {one} and {two}?
What happens if I mix {one} and {two}?
Mix {one} and {two}.
(What colour|Which colour) do I get from {one} and {two}?
= {one} and {two} make {colour}. [{colour}]
""")

FOOD_RULES = rules("""
How does {x} taste?
How do {xs} taste?
What does {x} taste like?
What is the taste of {x}?
= {x} tastes {taste}. [{taste}]

What is {x}?
What are {xs}?
What kind of (thing|food) is {x}?
Do you know what {x} is?
Tell me about {xs}.
= {x} is a {kind}. It tastes {taste}. [{kind}]

Is {x} a {kind}?
Are {xs} {kind}s?
Would you call {x} a {kind}?
= Yes, {x} is a {kind}. [Yes]

Is {x} {wrong}?
Would you call {x} {wrong}?
= No, {x} is a {kind}. [No]

(Can I|Can you|Can people|Should I) eat ({x}|{xs})?
= Yes, you can eat {x}. It tastes {taste}. [Yes]
""")

MEMBERS, ONE_MEMBER = rules("""
(Name|Tell me|Give me|List|Please name) {count} {kind}s.
Can you name {count} {kind}s?
Do you know {count} {kind}s?
= {row}. [{first}]

(Name|Tell me|Give me|Please name) {kind_a}.
Can you name {kind_a}?
Do you know {kind_a}?
= {row}. [{first}]
""")

CAPITAL_OF, COUNTRY_OF = rules("""
(What is|What's) the capital( city|) of {x}?
(Which|What) city is the capital of {x}?
Do you know the capital of {x}?
Tell me the capital of {x}.
Name the capital of {x}.
Capital of {x}?
= The capital of {x} is {city}. [{city}]

Where is {city}?
In (which|what) country is {city}?
(Which|What) country has the capital {city}?
= {city} is the capital of {x}. [{x}]
""")

RELATIVE, BODY_USE, BODY_NUMBER = rules("""
Who is the {who}?
What do I call the {who}?
What is the {who} called?
What is the word for the {who}?
= The {who} is your {word}. [{word}]

What do you do with your {part}?
What can I do with my {part}?
What do people do with their {part}?
Why do we have {part}?
= You {action} with your {part}. [{action_word}]

How many {part} does a person have?
How many {part} do (you|people|I|we) have?
= A person has {number} {part}. [{number}]
""")

SEASON_RULES = rules("""
(What is|How is|What's) the weather in {season}?
How is it in {season}?
= In {season} it is {like}. [{like}]

What happens in {season}?
What can I see in {season}?
= In {season} {event}.

Tell me (something|) about {season}.
What do you know about {season}?
What is {season}?
Describe {season}.
= {season} is a season. It is {like} and {event}. [Season]
""")

WEATHER_RULES = rules("""
(It is|It's|Today it is|Outside it is|Look, it is) {kind}(.|!| today.| outside.| here.)
= Then you should {advice}.

What (should|can|must) I (do|wear|take) when it is {kind}?
It is {kind}. What should I do?
= When it is {kind}, {advice}.

How is (it|the weather|a day) when it is {kind}?
= When it is {kind}, it is {like}.

What is the weather like( today| now| outside| tomorrow|)?
(How is|What's) the weather( today| now| outside| tomorrow|)?
Will it rain( today| tomorrow|)?
= I cannot see outside. Please look out of the window.
""")

MEANING = rules("""
(What is|What's) {x}?
What is {x}?
Can you explain what {x} is?
Do you know what {x} is?
Tell me what {x} is.
What do you mean by {x}?
(Define|Explain|Describe) {x}.
= {x} is {meaning}.
""")[0]

NUMBER_WORDS = ["", "", "two", "three", "four"]


def colours(rng: Random) -> Exchange:
    """The colour of things, things of a colour, and what paints mix to."""
    choice = rng.random()
    if choice < 0.6:
        (thing, colour), *others = pick(rng, COLOURS, rng.choice([1, 1, 2, 3]))
        exchange = [COLOUR_OF.turn(rng, x=thing, colour=colour)]
        return exchange + [COLOUR_OF.follow(rng, FOLLOW, x=thing, colour=colour) for thing, colour in others]
    if choice < 0.75:
        thing, colour = rng.choice(COLOURS)
        other = rng.choice([name for name in COLOUR_NAMES if name != colour])
        return [rng.choice([IS_COLOUR, IS_NOT_COLOUR]).turn(rng, x=thing, colour=colour, other=other)]
    if choice < 0.9:
        colour = rng.choice(COLOUR_NAMES)
        thing = next(thing for thing, its in COLOURS if its == colour)
        return [OF_COLOUR.turn(rng, x=thing, colour=colour, x_word=thing.split()[-1])]
    left, right, colour = rng.choice(MIXES)
    one, two = either(rng, (left, right))
    return [MIXED.turn(rng, one=one, two=two, colour=colour)]


def foods(rng: Random) -> Exchange:
    """Kind and taste of food."""
    name, plural, kind, taste = rng.choice(FOODS)
    wrong = a(rng.choice([other for other in ("animal", "colour", "fruit", "vegetable", "toy") if other != kind]))
    return [rng.choice(FOOD_RULES).turn(rng, x=a(name), xs=plural, kind=kind, taste=taste, wrong=wrong)]


def members(rng: Random) -> Exchange:
    """Name some of a kind. Always the first ones of a fixed order, so that the greedy answer is a learnt one."""
    kind, count = rng.choice(list(KINDS)), rng.choice([1, 2, 2, 3, 3, 4])
    names = KINDS[kind][:count]
    row = listing([name if kind in ("colour", "drink", "season") else a(name) for name in names])
    rule = ONE_MEMBER if count == 1 else MEMBERS
    first = names[0].split()[-1]
    return [rule.turn(rng, kind=kind, kind_a=a(kind), count=NUMBER_WORDS[count], row=capital(row), first=first)]


def capitals(rng: Random) -> Exchange:
    """Countries and their capitals, both ways, with follow-ups."""
    (country, city), *others = pick(rng, CAPITALS, rng.choice([1, 1, 2, 3]))
    if rng.random() < 0.3:
        return [COUNTRY_OF.turn(rng, x=country, city=city)]
    exchange = [CAPITAL_OF.turn(rng, x=country, city=city)]
    return exchange + [CAPITAL_OF.follow(rng, FOLLOW, x=country, city=city) for country, city in others]


def family_and_body(rng: Random) -> Exchange:
    """Who is who in a family, and what the parts of the body are for."""
    if rng.random() < 0.5:
        who, word = rng.choice(FAMILY)
        return [RELATIVE.turn(rng, who=who, word=word)]
    part, action, number = rng.choice(BODY)
    rule = rng.choice([BODY_USE] if number in ("one", "many") else [BODY_USE, BODY_NUMBER])
    return [rule.turn(rng, part=part, action=action, number=number, action_word=action.split()[0])]


def weather(rng: Random) -> Exchange:
    """What the weather and the seasons are like, and what to do about it."""
    if rng.random() < 0.35:
        season, like, event = rng.choice(SEASONS)
        return [rng.choice(SEASON_RULES).turn(rng, season=season, like=like, event=event)]
    kind, like, advice = rng.choice(WEATHER)
    return [rng.choice(WEATHER_RULES).turn(rng, kind=kind, like=like, advice=advice)]


def definitions(rng: Random) -> Exchange:
    """What a word means."""
    (thing, meaning), *others = pick(rng, DEFINITIONS, rng.choice([1, 1, 1, 2]))
    exchange = [MEANING.turn(rng, x=thing, meaning=meaning)]
    return exchange + [MEANING.follow(rng, FOLLOW, x=thing, meaning=meaning) for thing, meaning in others]
