"""Questions about the things of the world: animals, colours, food, capitals, family, body, weather, definitions."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .turns import Exchange, Turn, a, capital, listing, pick, say
from .world import (ANIMALS, BODY, CAPITALS, COLOUR_NAMES, COLOURS, DEFINITIONS, FAMILY, FOODS, KINDS, MIXES, SEASONS,
                    WEATHER)

Answer = Callable[[list[str]], tuple[str, str]]
FOLLOW = "(And|What about|How about|And what about) {x}?"


def _animal_sound(row: list[str]) -> tuple[str, str]:
    sound = row[2]
    return (f"{capital(a(row[0]))} makes no sound." if sound == "nothing" else f"{capital(a(row[0]))} says {sound}."), capital(sound)


# question patterns | how the row answers
ANIMAL_QUESTIONS: list[tuple[str, Answer]] = [
    ("(What sound does {x} make|What does {x} say|Which sound does {x} make|How does {x} sound|"
     "What noise does {x} make|Tell me the sound of {x})?", _animal_sound),
    ("(Where does {x} live|What is the home of {x}|Where can I find {x}|In what place does {x} live|Where do {xs} live)?",
     lambda row: (f"{capital(a(row[0]))} lives {row[3]}.", capital(row[3].split()[-1]))),
    ("(What does {x} eat|What do {xs} eat|What is the food of {x}|What do {xs} like to eat|What can I feed {x})?",
     lambda row: (f"{capital(a(row[0]))} eats {row[4]}.", capital(row[4].split()[-1]))),
    ("(How many legs does {x} have|How many legs do {xs} have|How many legs has {x}|Count the legs of {x}|"
     "Tell me how many legs {x} has)?", lambda row: (f"{capital(a(row[0]))} has {row[5]} legs.", capital(row[5]))),
    ("(Is {x} big or small|How big is {x}|What size is {x}|Are {xs} big or small|What is the size of {x})?",
     lambda row: (f"{capital(a(row[0]))} is {row[6]}.", capital(row[6]))),
    ("(What covers {x}|What does {x} have on its body|What is on the body of {x}|What is {x} covered with)?",
     lambda row: (f"{capital(a(row[0]))} has {row[7]}.", capital(row[7].split()[-1]))),
    ("(What is a baby {n} called|What is the young of {x} called|How do you call a baby {n}|What is the name for a baby {n})?",
     lambda row: (f"A baby {row[0]} is called {a(row[8])}.", capital(row[8].split()[-1]))),
    ("(What can {x} do|What are {xs} good at|What can {xs} do|What is {x} good at)?",
     lambda row: (f"{capital(a(row[0]))} can {row[9]}.", capital(row[9]))),
]


def animal_fact(rng: Random) -> Exchange:
    """One property of one animal, often followed by the same question about others, by ellipsis."""
    question, answer = rng.choice(ANIMAL_QUESTIONS)
    exchange = []
    for position, row in enumerate(pick(rng, ANIMALS, rng.choice([1, 1, 2, 2, 3]))):
        user = say(rng, question if position == 0 else FOLLOW, x=a(row[0]), xs=row[1], n=row[0])
        exchange.append(Turn(user, *answer(row)))
    return exchange


def animal_talk(rng: Random) -> Exchange:
    """Two sentences about an animal, then questions that only say `it`."""
    row = rng.choice(ANIMALS)
    name, plural, _, home, food, legs, size, cover, young, can, cannot = row
    user = say(rng, "(Tell me (something|a bit|) about {xs}|What do you know about {xs}|What is {x}|Describe {x}|"
                    "What are {xs}|Do you know {xs}|Can you tell me about {xs}|Talk about {xs})?", x=a(name), xs=plural)
    exchange = [Turn(user, f"{capital(a(name))} is a {size} animal. It lives {home} and eats {food}.", "Animal")]
    more = [
        Turn(say(rng, "(Where does it live|Where is its home|Where do they live)?"), f"{capital(a(name))} lives {home}."),
        Turn(say(rng, "(What does it eat|What do they eat|What is its food)?"), f"{capital(a(name))} eats {food}."),
        Turn(say(rng, "(How many legs does it have|How many legs do they have)?"), f"{capital(a(name))} has {legs} legs."),
        Turn(say(rng, "(What sound does it make|What does it say)?"), _animal_sound(row)[0]),
        Turn(say(rng, "(What is its baby called|What is a baby one called)?"), f"A baby {name} is called {a(young)}."),
        Turn(say(rng, "Can it {verb}?", verb=can), f"Yes, {a(name)} can {can}."),
        Turn(say(rng, "Can it {verb}?", verb=cannot), f"No, {a(name)} cannot {cannot}."),
    ]
    return exchange + pick(rng, more, rng.choice([0, 0, 1, 2]))


def animal_ability(rng: Random) -> Exchange:
    """Can a bird fly? Can a cow?"""
    exchange = []
    for position, row in enumerate(pick(rng, ANIMALS, rng.choice([1, 1, 2]))):
        good = rng.random() < 0.5
        verb = row[9] if good else row[10]
        user = say(rng, "(Can {x} {verb}|Can {xs} {verb}|Is {x} able to {verb}|Do you think that {x} can {verb})?",
                   x=a(row[0]), xs=row[1], verb=verb)
        if position:
            user = say(rng, "(And can|Can) {x} {verb}?", x=a(row[0]), verb=verb)
        reply = f"Yes, {a(row[0])} can {verb}." if good else f"No, {a(row[0])} cannot {verb}."
        exchange.append(Turn(user, reply, "Yes" if good else "No"))
    return exchange


def colours(rng: Random) -> Exchange:
    """The colour of things, things of a colour, and what paints mix to."""
    kind = rng.random()
    if kind < 0.6:
        question = "(What colour is {x}|Which colour is {x}|What is the colour of {x}|What color is {x}|Tell me the colour of {x}|What colour does {x} have)?"
        chosen = pick(rng, COLOURS, rng.choice([1, 1, 2, 3]))
        return [Turn(say(rng, FOLLOW if at else question, x=thing), f"{capital(thing)} is {colour}.", capital(colour))
                for at, (thing, colour) in enumerate(chosen)]
    if kind < 0.75:
        thing, colour = rng.choice(COLOURS)
        guess = colour if rng.random() < 0.5 else rng.choice(COLOUR_NAMES)
        right = guess == colour
        return [Turn(say(rng, "(Is {x} {guess}|Is the colour of {x} {guess}|Would you say that {x} is {guess})?", x=thing, guess=guess),
                     f"Yes, {thing} is {colour}." if right else f"No, {thing} is {colour}.", "Yes" if right else "No")]
    if kind < 0.9:
        colour = rng.choice(COLOUR_NAMES)
        things = [thing for thing, its in COLOURS if its == colour][:2]
        return [Turn(say(rng, "(Name|Tell me|Give me|What is) (something|a thing|a thing that is) {c}.", c=colour),
                     f"{capital(things[0])} is {colour}.", capital(things[0].split()[-1]))]
    one, two, mixed = rng.choice(MIXES)
    if rng.random() < 0.5:
        one, two = two, one
    return [Turn(say(rng, "(What do you get when you mix|What happens if I mix|What colour do I get from|Mix) {a} and {b}?", a=one, b=two),
                 f"{capital(one)} and {two} make {mixed}.", capital(mixed))]


def foods(rng: Random) -> Exchange:
    """Kind and taste of food."""
    name, plural, kind, taste = rng.choice(FOODS)
    wrong = rng.choice(["animal", "colour", "fruit", "vegetable", "toy"])
    yes = wrong == kind
    return [rng.choice([
        Turn(say(rng, "(How does {x} taste|What does {x} taste like|What is the taste of {x}|How do {xs} taste)?", x=a(name), xs=plural),
             f"{capital(a(name))} tastes {taste}.", capital(taste)),
        Turn(say(rng, "(What is {x}|What are {xs}|What kind of thing is {x}|What kind of food is {x}|Do you know what {x} is)?", x=a(name), xs=plural),
             f"{capital(a(name))} is a {kind}. It tastes {taste}.", capital(kind)),
        Turn(say(rng, "(Is {x} {w}|Are {xs} {w}s|Would you call {x} {w})?", x=a(name), xs=plural, w=a(wrong)),
             f"Yes, {a(name)} is a {kind}." if yes else f"No, {a(name)} is a {kind}.", "Yes" if yes else "No"),
        Turn(say(rng, "(Can I|Can you|Can people|Should I) eat {x}?", x=rng.choice([a(name), plural])),
             f"Yes, you can eat {a(name)}. It tastes {taste}.", "Yes"),
    ])]


def members(rng: Random) -> Exchange:
    """Name some of a kind. Always the first ones of a fixed order, so that the greedy answer is a learnt one."""
    kind = rng.choice(list(KINDS))
    count = rng.choice([1, 2, 2, 3, 3, 4])
    items = KINDS[kind][:count]
    plural = kind if count == 1 else kind + "s"
    number = ["", "one", "two", "three", "four"][count]
    user = say(rng, "(Name|Tell me|Give me|List|Can you name|Do you know|Please name) {n} {k}(.|?)", n=number, k=plural)
    words = [item if kind in ("colour", "drink", "season") else a(item) for item in items]
    return [Turn(user, capital(listing(words)) + ".", capital(items[0].split()[-1]))]


def capitals(rng: Random) -> Exchange:
    """Countries and their capitals, both ways, with follow-ups."""
    if rng.random() < 0.3:
        country, city = rng.choice(CAPITALS)
        user = say(rng, "(Where is|In which country is|What country is|Which country has the capital|What is the country of) {x}?", x=city)
        return [Turn(user, f"{city} is the capital of {country}.", country)]
    question = "(What is the capital of {x}|What's the capital of {x}|Tell me the capital of {x}|Name the capital of {x}|Which city is the capital of {x}|Do you know the capital of {x}|Capital of {x})?"
    return [Turn(say(rng, FOLLOW if at else question, x=country), f"The capital of {country} is {city}.", city)
            for at, (country, city) in enumerate(pick(rng, CAPITALS, rng.choice([1, 1, 2, 3])))]


def family_and_body(rng: Random) -> Exchange:
    """Who is who in a family, and what the parts of the body are for."""
    if rng.random() < 0.5:
        person, word = rng.choice(FAMILY)
        user = say(rng, "(Who is the {p}|What do I call the {p}|What is the {p} called|How do I call the {p}|What is the word for the {p}|The {p} is my)?", p=person)
        return [Turn(user, f"The {person} is your {word}.", capital(word))]
    part, action, number = rng.choice(BODY)
    plural = part in ("eyes", "ears", "hands", "feet", "legs", "teeth", "fingers")
    ask = [Turn(say(rng, "(What do you do with|What can I do with|What are|Why do we have|What do people do with) your {p}?".replace("What are|", ""), p=part),
                f"You {action} with your {part}.", capital(action.split()[0]))]
    if plural and number != "many":
        ask.append(Turn(say(rng, "How many {p} (does a person have|do you have|do people have|do I have|does a man have)?", p=part),
                        f"A person has {number} {part}.", capital(number)))
    return [rng.choice(ask)]


def weather(rng: Random) -> Exchange:
    """What the weather and the seasons are like, and what to do about it."""
    if rng.random() < 0.35:
        season, like, event = rng.choice(SEASONS)
        return [rng.choice([
            Turn(say(rng, "(What is|How is|What's) (the weather|it) (in|like in) {s}?", s=season), f"In {season} it is {like}.", capital(like)),
            Turn(say(rng, "(What happens|What can I see|What is nice) in {s}?", s=season), f"In {season} {event}."),
            Turn(say(rng, "(Tell me (something|) about|What do you know about|What is|Describe) {s}.", s=season), f"{capital(season)} is a season. It is {like} and {event}.", "Season"),
        ])]
    kind, like, advice = rng.choice(WEATHER)
    return [rng.choice([
        Turn(say(rng, "(It is|It's|Today it is|Outside it is|Look, it is) {w}(.|!| today.| outside.| here.)", w=kind), f"Then you should {advice}."),
        Turn(say(rng, "What (should|can|must) I (do|wear|take) when it is {w}?", w=kind), f"When it is {kind}, {advice}."),
        Turn(say(rng, "(How|What) is (it|the weather|a day) (like |)when it is {w}?", w=kind), f"When it is {kind}, it is {like}."),
        Turn(say(rng, "(What is the weather like|How is the weather|What's the weather)( today| now| outside| tomorrow|)?"),
             "I cannot see outside. Please look out of the window."),
    ])]


def definitions(rng: Random) -> Exchange:
    """What a word means."""
    question = "(What is|What's|Can you explain what|Do you know what|Tell me what|Define|Explain|What do you call|What do you mean by) {x}?".replace("|What do you call", "")
    chosen = pick(rng, DEFINITIONS, rng.choice([1, 1, 1, 2]))
    return [Turn(say(rng, FOLLOW if at else question, x=thing), f"{capital(thing)} is {meaning}.")
            for at, (thing, meaning) in enumerate(chosen)]
