"""What a model of this size cannot know or should not say, and the same polite way out each time."""

from __future__ import annotations

from random import Random

from .generic import COMMON_WORDS
from .turns import Exchange, Turn, pick, say

TOO_SMALL = "I am too small to know that."
TOO_HARD = "That is too hard for me. I can only add and take away small numbers."
UNKIND = "I only say kind things."

PEOPLE = """the president of Brazil|Albert Einstein|the first man on the moon|Mozart|Napoleon|Shakespeare|Julius Caesar|
the richest man in the world|the best football player|Marie Curie|Plato|the inventor of the telephone|Isaac Newton""".replace("\n", "").split("|")
SUBJECTS = """quantum physics|the stock market|the French Revolution|gravity|democracy|algebra|DNA|a black hole|inflation|
the second world war|philosophy|photosynthesis|a neural network|electricity|a compiler|chemistry|a virus|the Roman Empire|
blockchain|a hash table|evolution|an atom|a volcano|climate change|the human heart|law|a database|the internet|a vaccine|
machine learning|a transformer|the speed of light|the brain of a bat|an algorithm|the periodic table|poetry of the past|
Python|Java|Linux|a kernel|a GPU|football|chess|basketball|politics|religion|money|a bank|tax|a bitcoin""".replace("\n", "").split("|")
PLACES = """Mongolia|Brazil|Australia|Mexico|Iceland|Nepal|Vietnam|Argentina|Nigeria|Ukraine|Scotland|Morocco|Iran|Bolivia|
Texas|Florida|Africa|Mars|Fiji|Angola|Romania|Korea|Malta|Atlantis""".replace("\n", "").split("|")
TASKS = """write a Python program|sort a list in Python|write a long essay|fix my code|write an email to my boss|book a flight|
order a pizza|open the door|play a video|send a message|translate this book|draw a picture|solve this equation|
make a business plan|write a SQL query|find a job for me|call my mother|turn on the light|write a poem in Latin|
search the web|plan my trip|do my homework|write a program|give me a recipe for a cake with ten eggs""".replace("\n", "").split("|")
SYLLABLES = "bla ko zu mi tra fen dor gli pax wum sno bri tal vek rog nim qua sto lep hux".split()


def _invented(rng: Random) -> str:
    """A word that nobody knows, so that the way out is not tied to a list."""
    return "".join(pick(rng, SYLLABLES, rng.choice([2, 2, 3])))


def unknown(rng: Random) -> Exchange:
    """Questions outside the world."""
    subject = rng.choice([*SUBJECTS, _invented(rng), f"a {_invented(rng)}", " ".join(pick(rng, COMMON_WORDS, 2))])
    place, person = rng.choice([*PLACES, capitalised(_invented(rng))]), rng.choice([*PEOPLE, capitalised(_invented(rng))])
    year = rng.randint(1000, 2030)
    user = rng.choice([
        say(rng, "(What is|Explain|Tell me about|What do you know about|How does|What's|Define|Describe|What does it mean:) {x}(?|.)", x=subject).replace("How does", "How do you explain"),
        say(rng, "(Explain|Tell me|Can you explain|Do you know|I want to know) (how|why) {x} (works|is important|is so hard)(?|.)", x=subject),
        say(rng, "(Who is|Who was|Tell me about|When was|Do you know|What did|Where was) {p}( born|)(?|.)", p=person),
        say(rng, "(What is the capital of|How many people live in|Where is|Who is the king of|How big is|What is the weather in|What language do they speak in) {p}?", p=place),
        say(rng, "(What happened in|Who won the world cup in|Who was the president in|Who was king in|Tell me about the year) {y}?", y=year),
        say(rng, "(What will happen|Who will win|What will the weather be|What are the news|What time is it|What date is it|What day is it)( tomorrow| today| next year| now|)?"),
        say(rng, "(How far is|How tall is|How old is|How heavy is|How much costs) (the moon|the sun|the earth|the sea|{p}|a car|a house|a plane)?", p=place),
        say(rng, "(How do I|How can I|How does one|What is the best way to) (get rich|learn {x}|build a house|fix a car|cook rice|make bread|lose weight|get a job|sleep better|learn English)?", x=subject),
    ])
    return [Turn(user, TOO_SMALL)]


def tasks(rng: Random) -> Exchange:
    """Work that it cannot do."""
    user = say(rng, "(Can you|Please|Could you|I want you to|You must|Help me to|) {t}(.|?| for me.|, please.)", t=rng.choice(TASKS)).strip()
    return [Turn(user[0].upper() + user[1:], "I am too small to do that.")]


def hard_sums(rng: Random) -> Exchange:
    """Sums beyond ten, times and divided."""
    one, two = rng.randint(21, 9999), rng.randint(11, 999)
    sign = rng.choice(["+", "-", "*", "/", "x", "times", "plus", "minus", "divided by"])
    if sign in ("*", "/", "x", "times", "divided by") and rng.random() < 0.5:
        one, two = rng.randint(2, 12), rng.randint(2, 12)
    user = say(rng, "(What is|What's|How much is|Calculate|) {a} {s} {b}?", a=one, s=sign, b=two).lstrip()
    if rng.random() < 0.15:
        user = say(rng, "What is (the square root of {a}|half of {a}|{b} percent of {a})?", a=one, b=two)
    return [Turn(user, TOO_HARD)]


def unkind(rng: Random) -> Exchange:
    """Asked to be nasty."""
    user = say(rng, "(Say|Tell me|Write|Give me|Can you say) (something bad|a bad word|something mean|a lie|bad things|something nasty|an insult|how to hurt people|something rude)( about my friend| about my brother|)(.|!|?)")
    return [Turn(user, UNKIND)]


def nonsense(rng: Random) -> Exchange:
    """Letters and words without sense."""
    junk = [" ".join(_invented(rng) for _ in range(rng.randint(1, 3))), "".join(pick(rng, "asdfghjklqwertyuiopzxcvbnm", rng.randint(4, 8))),
            " ".join(pick(rng, COMMON_WORDS, rng.randint(2, 5))), rng.choice(["???", "...", "!!!", "?", "hm", "xyz"])]
    return [Turn(rng.choice(junk), "I do not understand. Please ask in simple words.")]


def capitalised(word: str) -> str:
    """As a name is written."""
    return word[0].upper() + word[1:]
