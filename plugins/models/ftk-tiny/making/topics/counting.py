"""Small numbers and the calendar: counting, sums, comparing, days, months."""

from __future__ import annotations

from random import Random

from .turns import Exchange, Turn, a, capital, listing, pick, say
from .world import ANIMALS, NAMES, OBJECTS

NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
PLURALS = {"box": "boxes"}
BIG_FIRST = "whale elephant giraffe bear horse cow tiger pig sheep dog fox cat rabbit duck frog mouse spider bee ant".split()


def counting(rng: Random) -> Exchange:
    """Count up and down."""
    low, high = sorted(pick(rng, range(0, 21), 2))
    high = min(high, low + 9)
    row = [str(number) for number in range(low, high + 1)]
    if rng.random() < 0.3:
        user = say(rng, "(Count (down |back |backwards )from|Can you count (down|backwards) from) {h} to {l}(.|?)", h=high, l=low)
        return [Turn(user, ", ".join(reversed(row)) + ".")]
    if rng.random() < 0.4:
        return [Turn(say(rng, "(Count|Please count|Can you count|Count up) to {h}(.|?)", h=high or 1), ", ".join(str(n) for n in range(1, (high or 1) + 1)) + ".")]
    return [Turn(say(rng, "(Count|Please count|Can you count|Count up) from {l} to {h}(.|?)", l=low, h=high), ", ".join(row) + ".")]


def neighbours(rng: Random) -> Exchange:
    """The number after and before."""
    number, after = rng.randint(1, 19), rng.random() < 0.6
    other, side = (number + 1, "after") if after else (number - 1, "before")
    return [Turn(say(rng, "(What comes {s}|Which number comes {s}|What is the number {s}|Which number is {s}|What number is {s}) {n}?", s=side, n=number),
                 f"The number {side} {number} is {other}.", str(other))]


def sums(rng: Random) -> Exchange:
    """Add and take away up to ten, in digits or in words, with follow-ups."""
    exchange = []
    for at in range(rng.choice([1, 1, 2])):
        add = rng.random() < 0.6
        one, two = rng.randint(0, 10), rng.randint(0, 10)
        if not add and two > one:
            one, two = two, one
        result = one + two if add else one - two
        words = rng.random() < 0.35
        left, right, total = (NUMBERS[number] if words else str(number) for number in (one, two, result))
        spoken = ("plus" if add else "minus") if words else ("+" if add else "-")
        asked = rng.choice([spoken, "plus" if add else "minus", spoken])
        task = f"{left}{asked}{right}" if not words and asked == spoken and rng.random() < 0.3 else f"{left} {asked} {right}"
        ask = "(And|And what is|What about) {t}?" if at else "(What is|What's|How much is|Calculate|Can you work out|Tell me|Solve|) {t}?"
        exchange.append(Turn(say(rng, ask, t=task).lstrip(), f"{capital(left)} {spoken} {right} is {total}.", capital(total)))
    return exchange


def story_sums(rng: Random) -> Exchange:
    """Sums told with things and names."""
    name, thing = rng.choice(NAMES), PLURALS.get(noun := rng.choice(OBJECTS), noun + "s")
    one, two = rng.randint(2, 9), rng.randint(1, 5)
    if rng.random() < 0.5 or two >= one:
        event, total = say(rng, "(gets|finds|buys|takes) {n} more", n=two).lower(), one + two
    else:
        event, total = say(rng, "(loses|gives away|sells|drops) {n}", n=two).lower(), one - two
    user = say(rng, "{name} has {one} {thing}. {name} {event}. (How many {thing} does {name} have now|How many {thing} does {name} have|How many {thing} are there now)?",
               name=name, one=one, thing=thing, event=event)
    return [Turn(user, f"{name} has {total} {thing}.".replace(" 1 " + thing, f" 1 {noun}"), str(total))]


def comparing(rng: Random) -> Exchange:
    """Which number, or which animal, is bigger."""
    if rng.random() < 0.5:
        one, two = pick(rng, range(0, 21), 2)
        bigger = rng.random() < 0.5
        word, answer = ("bigger", max(one, two)) if bigger else ("smaller", min(one, two))
        other = one + two - answer
        return [Turn(say(rng, "(Which (number |)is {w}|What is {w}|Tell me which (number |)is {w}), {a} or {b}?", w=word, a=one, b=two),
                     f"{answer} is {word} than {other}.", str(answer))]
    one, two = pick(rng, range(len(BIG_FIRST)), 2)
    word, answer, other = ("bigger", min(one, two), max(one, two)) if rng.random() < 0.5 else ("smaller", max(one, two), min(one, two))
    names = [a(BIG_FIRST[index]) for index in (one, two)]
    if rng.random() < 0.5:
        return [Turn(say(rng, "(Which (animal |)is|What is|Who is|Which one is) {w}, {a} or {b}?", w=word, a=names[0], b=names[1]),
                     f"{capital(a(BIG_FIRST[answer]))} is {word} than {a(BIG_FIRST[other])}.", capital(BIG_FIRST[answer]))]
    yes = answer == one
    return [Turn(say(rng, "(Is {a} {w} than {b}|Do you think that {a} is {w} than {b})?", w=word, a=names[0], b=names[1]),
                 f"{'Yes' if yes else 'No'}, {a(BIG_FIRST[answer])} is {word} than {a(BIG_FIRST[other])}.", "Yes" if yes else "No")]


def calendar(rng: Random) -> Exchange:
    """Days and months: order, number, which comes next."""
    kind, row = rng.choice([("day", DAYS), ("month", MONTHS)])
    choice = rng.random()
    if choice < 0.6:
        at, after = rng.randrange(len(row)), rng.random() < 0.6
        other, side = (row[(at + 1) % len(row)], "after") if after else (row[at - 1], "before")
        return [Turn(say(rng, "(What|Which) {k} (comes|is) {s} {x}?", k=kind, s=side, x=row[at]), f"{other} comes {side} {row[at]}.", other)]
    if choice < 0.72:
        at = rng.randrange(len(row))
        relative, other = rng.choice([("tomorrow", 1), ("yesterday", -1)])
        tense = "is" if other == 1 else "was"
        return [Turn(say(rng, "Today is {x}. (What day {t} {r}|Which day {t} {r})?", x=DAYS[at % 7], t=tense, r=relative),
                     f"{capital(relative)} {tense} {DAYS[(at + other) % 7]}.", DAYS[(at + other) % 7])]
    return [rng.choice([
        Turn(say(rng, "(Name|List|Tell me|What are|Say) (all |)the days of the week."), f"The days are {listing(DAYS)}."),
        Turn(say(rng, "(Name|List|Tell me|What are|Say) (all |)the months of the year."), f"The months are {listing(MONTHS)}."),
        Turn(say(rng, "(Name|List|Tell me|What are|Say) (all |)the (four |)seasons."), "The seasons are spring, summer, autumn and winter."),
        Turn(say(rng, "How many days (are in|has|are there in) a week?"), "A week has seven days.", "Seven"),
        Turn(say(rng, "How many months (are in|has|are there in) a year?"), "A year has twelve months.", "Twelve"),
        Turn(say(rng, "How many hours (are in|has|are there in) a day?"), "A day has 24 hours.", "24"),
        Turn(say(rng, "How many minutes (are in|has|are there in) an hour?"), "An hour has 60 minutes.", "60"),
        Turn(say(rng, "(What|Which) is the first (day of the week|day)?"), "The first day of the week is Monday.", "Monday"),
        Turn(say(rng, "(What|Which) is the (first|last) month(| of the year)?").replace("last", "first"), "The first month of the year is January.", "January"),
    ])]


def quantity(rng: Random) -> Exchange:
    """Legs and such, counted over two animals: small sums with a fact inside."""
    value = {"no": 0, "two": 2, "four": 4, "six": 6, "eight": 8}
    row = rng.choice(ANIMALS)
    number = rng.choice([2, 3])
    total = value[row[5]] * number
    word = NUMBERS[total] if total <= 20 else str(total)
    return [Turn(say(rng, "How many legs (do|have) {n} {xs}( have|)?", n=NUMBERS[number], xs=row[1]),
                 f"{capital(NUMBERS[number])} {row[1]} have {word} legs." if total else f"{capital(row[1])} have no legs.", capital(word))]
