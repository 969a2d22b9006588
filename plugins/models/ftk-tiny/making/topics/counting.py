"""Small numbers and the calendar: counting, sums, comparing, days, months."""

from __future__ import annotations

from random import Random

from .talk import person
from .turns import Exchange, a, listing, pick, rules, say, word_list
from .world import ANIMALS, FOODS, OBJECTS

NUMBERS = word_list("""
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty
""")
DAYS = word_list("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = word_list("January February March April May June July August September October November December")
LEGS = {"no": 0, "two": 2, "four": 4, "six": 6, "eight": 8}
BY_SIZE = word_list("""
whale elephant giraffe bear horse cow tiger pig sheep dog fox cat rabbit duck frog mouse spider bee ant
""")

UP, DOWN, UP_TO, NEIGHBOUR = rules("""
(Count|Please count|Count up) from {low} to {high}.
Can you count from {low} to {high}?
= {row}.

(Count down|Count back|Count backwards|Please count down) from {high} to {low}.
Can you count (down|backwards) from {high} to {low}?
= {back}.

(Count|Please count|Count up) to {high}.
Can you count to {high}?
= {row}.

What comes {side} {n}?
(What|Which) number comes {side} {n}?
(What|Which) number is {side} {n}?
What is the number {side} {n}?
= The number {side} {n} is {other}. [{other}]
""")

SUM = rules("""
(What is|What's|How much is) {task}?
Can you work out {task}?
(Calculate|Solve|Tell me) {task}.
{task}
{task} = ?
= {left} {sign} {right} is {total}. [{total}]
""")[0]

STORY_SUM = rules("""
{name} has {one} {things}. {who} {event}. How many {things} does {name} have(| now)?
{name} has {one} {things}. {who} {event}. How many {things} (are there|are left|has {name}) now?
= {name} has {total} {left}. [{total}]
""")[0]

LEGS_OF = rules("""
How many legs do {n} {xs} have?
How many legs have {n} {xs}?
= {n} {xs} have {legs} legs. [{legs}]
""")[0]

COMPARED, YES, NO = rules("""
Which (number |one |)is {word}, {one} or {two}?
(What|Tell me what) is {word}, {one} or {two}?
= {answer} is {word} than {other}. [{short}]

Is {answer} {word} than {other}?
Do you think that {answer} is {word} than {other}?
= Yes, {answer} is {word} than {other}. [Yes]

Is {other} {word} than {answer}?
Do you think that {other} is {word} than {answer}?
= No, {answer} is {word} than {other}. [No]
""")

NEXT, RELATIVE = rules("""
(What|Which) {kind} (comes|is) {side} {x}?
(What is|What's) the {kind} {side} {x}?
= {other} comes {side} {x}. [{other}]

Today is {x}. (What|Which) day {tense} {relative}?
If today is {x}, (what|which) day {tense} {relative}?
= {relative} {tense} {other}. [{other}]
""")

CALENDAR = rules(f"""
(Name|List|Tell me|Say) (all |)the days of the week.
What are the days of the week?
= The days are {listing(DAYS)}.

(Name|List|Tell me|Say) (all |)the months of the year.
What are the months of the year?
= The months are {listing(MONTHS)}.

(Name|List|Tell me|Say) (all |)the (four |)seasons.
What are the four seasons?
= The seasons are spring, summer, autumn and winter.

How many days are (there |)in a week?
How many days does a week have?
= A week has seven days. [Seven]

How many months are (there |)in a year?
How many months does a year have?
= A year has twelve months. [Twelve]

How many hours are (there |)in a day?
How many hours does a day have?
= A day has 24 hours. [24]

How many minutes are (there |)in an hour?
How many minutes does an hour have?
= An hour has 60 minutes. [60]

(What|Which) is the first (day of the week|day)?
= The first day of the week is Monday. [Monday]

(What|Which) is the first month( of the year|)?
= The first month of the year is January. [January]

(What|Which) is the last month( of the year|)?
= The last month of the year is December. [December]
""")


def counting(rng: Random) -> Exchange:
    """Count up and down."""
    low, high = sorted(pick(rng, range(21), 2))
    rule = rng.choice([UP, UP, DOWN, UP_TO])
    low, high = (1, min(max(high, 3), 12)) if rule is UP_TO else (low, min(high, low + 9))
    row = [str(number) for number in range(low, high + 1)]
    return [rule.turn(rng, low=low, high=high, row=", ".join(row), back=", ".join(reversed(row)))]


def neighbours(rng: Random) -> Exchange:
    """The number after and before."""
    number = rng.randint(1, 19)
    other, side = rng.choice([(number + 1, "after"), (number - 1, "before")])
    return [NEIGHBOUR.turn(rng, side=side, n=number, other=other)]


def sums(rng: Random) -> Exchange:
    """Add and take away up to ten, in digits or in words, with follow-ups."""
    exchange: Exchange = []
    for _ in range(rng.choice([1, 1, 2])):
        left, right, total, name, sign = _sum(rng)
        if rng.random() < 0.35:
            slots = {"left": NUMBERS[left], "right": NUMBERS[right], "total": NUMBERS[total], "sign": name}
            task = f"{NUMBERS[left]} {name} {NUMBERS[right]}"
        else:
            slots = {"left": str(left), "right": str(right), "total": str(total), "sign": sign}
            task = rng.choice([f"{left} {sign} {right}", f"{left} {name} {right}", f"{left}{sign}{right}"])
        asks = ["(And|And what is|What about) {task}?"] if exchange else SUM.asks
        exchange.append(SUM.follow(rng, asks, task=task, **slots))
    return exchange


def _sum(rng: Random) -> tuple[int, int, int, str, str]:
    """Both numbers, the result, and the operation as a word and as a sign."""
    one, two = rng.randint(0, 10), rng.randint(0, 10)
    if rng.random() < 0.6:
        return one, two, one + two, "plus", "+"
    return max(one, two), min(one, two), abs(one - two), "minus", "-"


def story_sums(rng: Random) -> Exchange:
    """Sums told with things and names."""
    name, (thing, things) = (
        person(rng),
        rng.choice([(row[0], row[1]) for row in FOODS] + [_plural(row) for row in OBJECTS]),
    )
    one, two = rng.randint(2, 9), rng.randint(1, 5)
    if rng.random() < 0.6 or two >= one:
        event, total = say(rng, "x (gets|finds|buys|takes) {n} more", n=two)[2:], one + two
    else:
        event, total = say(rng, "x (loses|gives away|sells|eats) {n}", n=two)[2:], one - two
    left = thing if total == 1 else things
    who = rng.choice([name, "He", "She"])
    return [STORY_SUM.turn(rng, name=name, who=who, one=one, things=things, event=event, total=total, left=left)]


def _plural(noun: str) -> tuple[str, str]:
    return noun, noun + ("es" if noun.endswith("x") else "s")


def comparing(rng: Random) -> Exchange:
    """Which number, or which animal, is bigger."""
    numbers = rng.random() < 0.5
    big, small = sorted(pick(rng, range(len(BY_SIZE)), 2))
    big_name, small_name = (str(20 - big), str(20 - small)) if numbers else (a(BY_SIZE[big]), a(BY_SIZE[small]))
    word, answer, other = rng.choice([("bigger", big_name, small_name), ("smaller", small_name, big_name)])
    one, two = pick(rng, [answer, other], 2)
    rule = rng.choice([COMPARED, COMPARED, YES, NO])
    return [rule.turn(rng, word=word, answer=answer, other=other, one=one, two=two, short=answer.split()[-1])]


def calendar(rng: Random) -> Exchange:
    """Days and months: order, number, which comes next."""
    choice = rng.random()
    if choice < 0.55:
        kind, row = rng.choice([("day", DAYS), ("month", MONTHS)])
        at, (step, side) = rng.randrange(len(row)), rng.choice([(1, "after"), (-1, "before")])
        return [NEXT.turn(rng, kind=kind, side=side, x=row[at], other=row[(at + step) % len(row)])]
    if choice < 0.72:
        at, (step, relative, tense) = rng.randrange(7), rng.choice([(1, "tomorrow", "is"), (-1, "yesterday", "was")])
        return [RELATIVE.turn(rng, x=DAYS[at], relative=relative, tense=tense, other=DAYS[(at + step) % 7])]
    return [rng.choice(CALENDAR).turn(rng)]


def quantity(rng: Random) -> Exchange:
    """Legs, counted over several animals: a small sum with a fact inside."""
    row, number = rng.choice(ANIMALS), rng.choice([2, 3])
    total = LEGS[row[5]] * number
    legs = "no" if not total else NUMBERS[total] if total <= 20 else str(total)
    return [LEGS_OF.turn(rng, n=NUMBERS[number], xs=row[1], legs=legs)]
