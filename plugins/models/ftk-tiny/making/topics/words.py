"""Games with words: opposites, plurals, spelling, rhymes, repeating, sentences, patterns."""

from __future__ import annotations

from random import Random

from .generic import COMMON_WORDS, FRAGMENTS
from .turns import Exchange, Turn, a, capital, pairs, pick, say
from .world import ANIMALS, COLOUR_NAMES, FOODS, OBJECTS, OPPOSITES, PLACES

IRREGULAR = pairs("""mouse mice, man men, woman women, child children, foot feet, tooth teeth, goose geese, sheep sheep,
fish fish, wolf wolves, leaf leaves, knife knives, box boxes, bus buses, baby babies, city cities, story stories""")
PAST = pairs("""go went, see saw, eat ate, run ran, come came, give gave, take took, make made, say said, have had,
write wrote, read read, sing sang, swim swam, drink drank, sleep slept, fall fell, fly flew, buy bought, think thought,
play played, walk walked, jump jumped, look looked, help helped, like liked, live lived, talk talked, open opened""")
RHYMES = pairs("""cat hat, dog fog, mouse house, bee tree, bear chair, moon spoon, star car, cake lake, ball wall,
light night, sun run, fish dish, king ring, blue shoe, red bed, green queen, rain train, book cook, hen pen, goat boat,
fox box, snow crow, tea sea, bread head, day way""")
FRENCH = pairs("""hello/bonjour, thank you/merci, yes/oui, no/non, cat/chat, dog/chien, water/eau, bread/pain,
red/rouge, house/maison""")
SPANISH = pairs("""hello/hola, thank you/gracias, yes/si, no/no, cat/gato, dog/perro, water/agua, bread/pan,
red/rojo, house/casa""")
GERMAN = pairs("""hello/hallo, thank you/danke, yes/ja, no/nein, cat/Katze, dog/Hund, water/Wasser, bread/Brot,
red/rot, house/Haus""")
SPELLED = "cat dog sun cow pig red blue tree fish bird book moon hat milk cup rain snow star tiny bee ant egg sea ice".split()
SHAPES = ["{a}, {b}, {a}, {b}, {a}", "{a}, {a}, {b}, {a}, {a}"]


def opposites(rng: Random) -> Exchange:
    """The opposite of a word, both ways."""
    chosen = pick(rng, OPPOSITES, rng.choice([1, 1, 2, 3]))
    question = "(What is the opposite of {x}|What's the opposite of {x}|Tell me the opposite of {x}|Give me the opposite of {x}|Opposite of {x}|Which word is the opposite of {x})?"
    exchange = []
    for at, (left, right) in enumerate(chosen):
        if rng.random() < 0.5:
            left, right = right, left
        exchange.append(Turn(say(rng, "(And|And of|What about) {x}?" if at else question, x=left), f"The opposite of {left} is {right}.", capital(right)))
    return exchange


def forms(rng: Random) -> Exchange:
    """Plurals, past tense, rhymes and a few foreign words."""
    kind = rng.randrange(4)
    if kind == 0:
        nouns = IRREGULAR + [(row[0], row[1]) for row in ANIMALS] + [(word, word + "s") for word in OBJECTS if word != "box"]
        one, many = rng.choice(nouns)
        return [Turn(say(rng, "(What is the plural of {x}|Tell me the plural of {x}|One {x}, two|Plural of {x}|How do you say more than one {x})?", x=one),
                     f"One {one}, two {many}.", capital(many))]
    if kind == 1:
        now, then = rng.choice(PAST)
        return [Turn(say(rng, "(What is the past (tense |form |)of {x}|Past tense of {x}|Today I {x}, yesterday I)?", x=now), f"Today I {now}, yesterday I {then}.", capital(then))]
    if kind == 2:
        left, right = rng.choice(RHYMES)
        if rng.random() < 0.5:
            left, right = right, left
        return [Turn(say(rng, "(What rhymes with {x}|Tell me a word that rhymes with {x}|Give me a rhyme for {x}|Find a rhyme for {x}|Which word rhymes with {x})?", x=left),
                     f"{capital(left)} rhymes with {right}.", capital(right))]
    language, words = rng.choice([("French", FRENCH), ("Spanish", SPANISH), ("German", GERMAN)])
    english, foreign = rng.choice(words)
    return [Turn(say(rng, "(What is {x} in {l}|How do you say {x} in {l}|Say {x} in {l}|Translate {x} (to|into) {l}|What is the {l} word for {x})?", x=english, l=language),
                 f"In {language} you say {foreign}.", capital(foreign))]


def spelling(rng: Random) -> Exchange:
    """Spell short words, count and find their letters."""
    word = rng.choice(SPELLED)
    letters = "-".join(word.upper())
    number = ["", "", "two", "three", "four"][len(word)]
    return [rng.choice([
        Turn(say(rng, "(Spell|Please spell|How do you spell|Can you spell|Spell the word) {x}(.|?)", x=word), f"{letters}."),
        Turn(say(rng, "(What is|Which is|Tell me) the first letter of {x}?", x=word), f"The first letter of {word} is {word[0].upper()}.", word[0].upper()),
        Turn(say(rng, "(What is|Which is|Tell me) the last letter of {x}?", x=word), f"The last letter of {word} is {word[-1].upper()}.", word[-1].upper()),
        Turn(say(rng, "How many letters (are in|has|does) {x}?".replace("|does", ""), x=word), f"The word {word} has {number} letters.", capital(number)),
    ])]


def _phrase(rng: Random) -> str:
    """Words in any order: copying must not lean on their meaning. Now and then commands and file names."""
    if rng.random() < 0.35:
        return " ".join(pick(rng, FRAGMENTS, rng.randint(1, 2)) + pick(rng, COMMON_WORDS, rng.randint(0, 2)))
    return " ".join(pick(rng, COMMON_WORDS, rng.randint(1, 6)))


def repeating(rng: Random) -> Exchange:
    """Say after me. This also gives every token of the vocabulary a trained embedding."""
    if rng.random() < 0.2:
        word = rng.choice(COMMON_WORDS + COLOUR_NAMES)
        count, times = rng.choice([(2, "two times"), (2, "twice"), (3, "three times"), (4, "four times")])
        return [Turn(say(rng, "(Say|Repeat|Write|Please say) {x} {t}.", x=word, t=times), " ".join([word] * count))]
    text = _phrase(rng)
    quote = rng.choice(["", "", '"'])
    user = say(rng, "(Repeat after me:|Say:|Repeat:|Please repeat:|Say this:|Write:|Repeat these words:|Copy this:) {q}{x}{q}", x=text, q=quote)
    return [Turn(user, text)]


def sentences(rng: Random) -> Exchange:
    """A sentence with a given word."""
    animal, thing, place, colour = rng.choice(ANIMALS), rng.choice(OBJECTS), rng.choice(PLACES), rng.choice(COLOUR_NAMES)
    word, sentence = rng.choice([
        (animal[0], f"The {animal[0]} lives {animal[3]} and eats {animal[4]}."),
        (thing, f"I have a new {thing} and I like it."),
        (place, f"My friend and I go to the {place}."),
        (colour, f"My best friend has a {colour} hat.".replace("a orange", "an orange")),
        (rng.choice(FOODS)[0], ""),
    ])
    sentence = sentence or f"I eat {a(word)} every day."
    return [Turn(say(rng, "(Make|Write|Give me|Say|Tell me|Please write) a (short |simple |)sentence (with|about|using) (the word |){x}.", x=word), sentence)]


def patterns(rng: Random) -> Exchange:
    """What comes next in a row of two words that take turns."""
    one, two = pick(rng, rng.choice([COLOUR_NAMES, OBJECTS, [row[0] for row in ANIMALS], list("ABCDXYZ")]), 2)
    shape = rng.choice(SHAPES)
    user = say(rng, "(What comes next|What is next|Go on|Which word is next): {row}?", row=shape.format(a=one, b=two))
    return [Turn(user, f"Next comes {two}.", capital(two))]
