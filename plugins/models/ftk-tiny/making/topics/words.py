"""Games with words: opposites, plurals, spelling, rhymes, repeating, sentences, patterns."""

from __future__ import annotations

from random import Random

from .generic import COMMON_WORDS, FRAGMENTS
from .turns import Exchange, Turn, a, either, invented, pairs, pick, rules, say, word_list
from .world import ANIMALS, COLOUR_NAMES, FOODS, OBJECTS, OPPOSITES, PLACES

IRREGULAR = pairs("""
mouse/mice, man/men, woman/women, child/children, foot/feet, tooth/teeth, goose/geese, wolf/wolves, leaf/leaves,
knife/knives, box/boxes, bus/buses, baby/babies, city/cities, story/stories
""")
NOUNS = [
    *IRREGULAR,
    *((row[0], row[1]) for row in ANIMALS if row[0] not in ("mouse", "wolf")),
    *((word, word + "s") for word in OBJECTS if word != "box"),
]
PAST = pairs("""
go/went, see/saw, eat/ate, run/ran, come/came, give/gave, take/took, make/made, say/said, have/had, write/wrote,
read/read, sing/sang, swim/swam, drink/drank, sleep/slept, fall/fell, fly/flew, buy/bought, think/thought, play/played,
walk/walked, jump/jumped, look/looked, help/helped, like/liked, live/lived, talk/talked, open/opened
""")
RHYMES = pairs("""
cat/hat, dog/fog, mouse/house, bee/tree, bear/chair, moon/spoon, star/car, cake/lake, ball/wall, light/night, sun/run,
fish/dish, king/ring, blue/shoe, red/bed, green/queen, rain/train, book/cook, hen/pen, goat/boat, fox/box, snow/crow,
tea/sea, bread/head, day/way
""")
FOREIGN = {
    "French": pairs("""
hello/bonjour, thank you/merci, yes/oui, no/non, cat/chat, dog/chien, water/eau, bread/pain,
red/rouge, house/maison"""),
    "Spanish": pairs("""
hello/hola, thank you/gracias, yes/si, no/no, cat/gato, dog/perro, water/agua, bread/pan,
red/rojo, house/casa"""),
    "German": pairs("""
hello/hallo, thank you/danke, yes/ja, no/nein, cat/Katze, dog/Hund, water/Wasser,
bread/Brot, red/rot, house/Haus"""),
}
SPELLED = word_list(
    "cat dog sun cow pig red blue tree fish bird book moon hat milk cup rain snow star tiny bee ant sea ice"
)
SHAPES = ["{a}, {b}, {a}, {b}, {a}", "{a}, {a}, {b}, {a}, {a}"]

OPPOSITE, PLURAL, PAST_TENSE, RHYME, TRANSLATION = rules("""
(What is|What's) the opposite of {x}?
Which word is the opposite of {x}?
Do you know the opposite of {x}?
(Tell me|Give me) the opposite of {x}.
Opposite of {x}?
= The opposite of {x} is {y}. [{y}]

What is the plural of {x}?
How do you say more than one {x}?
One {x}, two what?
Tell me the plural of {x}.
= One {x}, two {y}. [{y}]

What is the past (tense |form |)of {x}?
Today I {x}, and yesterday?
= Today I {x}, yesterday I {y}. [{y}]

What rhymes with {x}?
Which word rhymes with {x}?
Tell me a word that rhymes with {x}.
(Give me|Find) a rhyme for {x}.
= {X} rhymes with {y}. [{y}]

What is {x} in {language}?
How do you say {x} in {language}?
What is the {language} word for {x}?
Say {x} in {language}.
Translate {x} (to|into) {language}.
= In {language} you say {y}. [{y}]
""")

SPELLING = rules("""
(Spell|Please spell|Spell the word) {x}.
(How do you|Can you) spell {x}?
= {letters}.

(What is|Which is) the first letter of {x}?
Tell me the first letter of {x}.
= The first letter of {x} is {first}. [{first}]

(What is|Which is) the last letter of {x}?
Tell me the last letter of {x}.
= The last letter of {x} is {last}. [{last}]

How many letters are in {x}?
How many letters does {x} have?
= The word {x} has {number} letters. [{number}]
""")

COPY = (
    "(Repeat after me|Say|Repeat|Please repeat|Say this|Write|Copy this|Say after me): {q}{x}{q}",
    "(Repeat these words|Repeat this sentence|Copy these words|Write down): {q}{x}{q}",
    "Repeat after me: {q}{x}{q}",
)
SENTENCE = (
    "(Make|Write|Give me|Say|Tell me|Please write) a (short |simple |)sentence (with|about) {x}.",
    "(Use|Please use) the word {x} in a sentence.",
)


def opposites(rng: Random) -> Exchange:
    """The opposite of a word, both ways, with follow-ups."""
    chosen = [either(rng, pair) for pair in pick(rng, OPPOSITES, rng.choice([1, 1, 2, 3]))]
    exchange = [OPPOSITE.turn(rng, x=chosen[0][0], y=chosen[0][1])]
    return exchange + [OPPOSITE.follow(rng, ["(And|And of|What about) {x}?"], x=x, y=y) for x, y in chosen[1:]]


def forms(rng: Random) -> Exchange:
    """Plurals, past tense, rhymes and a few foreign words."""
    language = rng.choice(list(FOREIGN))
    rule, pair = rng.choice([
        (PLURAL, rng.choice(NOUNS)),
        (PAST_TENSE, rng.choice(PAST)),
        (RHYME, either(rng, rng.choice(RHYMES))),
        (TRANSLATION, rng.choice(FOREIGN[language])),
    ])  # fmt: skip
    return [rule.turn(rng, x=pair[0], X=say(rng, pair[0]), y=pair[1], language=language)]


def spelling(rng: Random) -> Exchange:
    """Spell short words, count and find their letters."""
    word = rng.choice(SPELLED)
    letters = word.upper()
    number = ["", "", "two", "three", "four"][len(word)]
    slots = {"x": word, "letters": "-".join(letters), "first": letters[0], "last": letters[-1], "number": number}
    return [rng.choice(SPELLING).turn(rng, **slots)]


def _phrase(rng: Random) -> str:
    """Words in any order: copying must not lean on their meaning. Now and then commands, file names, made-up words."""
    chance = rng.random()
    if chance < 0.3:
        return " ".join(pick(rng, FRAGMENTS, rng.randint(1, 2)) + pick(rng, COMMON_WORDS, rng.randint(0, 2)))
    if chance < 0.45:
        return " ".join([invented(rng), *pick(rng, COMMON_WORDS, rng.randint(0, 3))])
    return " ".join(pick(rng, COMMON_WORDS, rng.choice([1, 1, 2, 2, 3, 4, 6])))


def repeating(rng: Random) -> Exchange:
    """Say after me. This also gives every token of the vocabulary a trained embedding."""
    if rng.random() < 0.2:
        word = rng.choice(COMMON_WORDS + COLOUR_NAMES + OBJECTS)
        count, times = rng.choice([(2, "two times"), (2, "twice"), (3, "three times"), (4, "four times")])
        return [
            Turn(say(rng, "(Say|Repeat|Write|Please say) {x} {times}.", x=word, times=times), " ".join([word] * count))
        ]
    text = _phrase(rng)
    return [Turn(say(rng, rng.choice(COPY), x=text, q=rng.choice(["", '"'])), text)]


def sentences(rng: Random) -> Exchange:
    """A sentence with a given word."""
    animal, colour = rng.choice(ANIMALS), rng.choice(COLOUR_NAMES)
    thing, place, food = rng.choice(OBJECTS), rng.choice(PLACES), rng.choice(FOODS)[0]
    word, sentence = rng.choice([
        (animal[0], f"The {animal[0]} lives {animal[3]} and eats {animal[4]}."),
        (thing, f"I have a new {thing} and I like it."),
        (place, f"My friend and I go to the {place}."),
        (colour, f"My best friend has {a(colour)} hat."),
        (food, f"I eat {a(food)} every day."),
    ])  # fmt: skip
    return [Turn(say(rng, rng.choice(SENTENCE), x=word), sentence)]


def patterns(rng: Random) -> Exchange:
    """What comes next in a row of two words that take turns."""
    one, two = pick(rng, rng.choice([COLOUR_NAMES, OBJECTS, [row[0] for row in ANIMALS], list("ABCDXYZ")]), 2)
    row = rng.choice(SHAPES).format(a=one, b=two)
    ask = "(What comes next|What is next|Go on|Which word is next): {row}?"
    return [Turn(say(rng, ask, row=row), f"Next comes {two}.", say(rng, two))]
