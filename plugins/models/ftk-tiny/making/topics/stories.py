"""Short stories with questions about them, jokes and rhymes."""

from __future__ import annotations

from random import Random

from .turns import Exchange, Turn, a, pick, say
from .world import ANIMALS, COLOUR_NAMES, NAMES, OBJECTS, PET_NAMES, PLACES

HEROES = ["cat", "dog", "mouse", "bear", "fox", "rabbit", "duck", "frog", "lion", "elephant", "bird", "owl", "penguin"]
TRAITS = ["little", "kind", "brave", "shy", "clever", "happy"]
FRIENDS = [row[0] for row in ANIMALS if row[0] in HEROES]

# Each plot: opening, trouble, end. Slots: h hero, n name, t trait, p place, c colour, o object, f friend animal.
PLOTS = [
    ("One day {n} lost a {c} {o}. {n} looked in the {p} and found it there. {n} was very happy.", "lost"),
    ("One day {n} found a {c} {o} in the {p}. It belonged to {fa}. {n} gave it back and they became friends.", "found"),
    ("One day it rained very hard. {n} met {fa} in the {p} and they stayed dry together. Soon the sun came out again.", "met"),
    ("One night {n} heard a loud noise in the {p}. {n} was afraid, but it was only {fa}. They laughed together.", "heard"),
    ("{n} wanted a {c} {o} more than anything. {n} worked hard in the {p} every day. At last {n} got the {o}.", "wanted"),
    ("{n} had no friends and was sad. In the {p} {n} met {fa}. They played all day and were never alone again.", "met"),
]

JOKES = [
    "Why did the hen cross the road? To get to the other side!",
    "What has four legs but cannot walk? A table!",
    "Why is the book so sad? It has too many problems!",
    "What has hands but cannot clap? A clock!",
    "What gets wet when it dries? A towel!",
    "What do you call a bear with no teeth? A gummy bear!",
]
SUBJECTS = {
    "the sun": "The sun is up, the sky is blue,\nthe birds all sing a song for you.",
    "a cat": "A little cat sat on a mat,\nit saw a mouse, and that was that.",
    "rain": "The rain comes down, the flowers drink,\nthe world is greener than you think.",
    "the moon": "The moon is round, the moon is bright,\nit shines on us the whole long night.",
    "a dog": "My little dog can run and play,\nhe stays with me the whole long day.",
    "winter": "The snow is white, the wind is cold,\nwe hear the stories that are told.",
    "the sea": "The sea is wide, the sea is deep,\nit sings the little fish to sleep.",
    "a tree": "The tree is tall, the tree is green,\nthe finest tree I ever seen.".replace("I ever seen", "that I have seen"),
}
ASK = ("((Please |Can you |)(tell|write|tell me|write me) (a|a short|a little) story|I want (to hear |)a story|Story|"
       "Do you know a (short |)story)")


def story(rng: Random) -> Exchange:
    """A story of four or five sentences, asked for with more or less detail, then questions about it."""
    hero = rng.choice(HEROES + ["girl", "boy"])
    name = rng.choice(NAMES if hero in ("girl", "boy") else PET_NAMES)
    slots = {"h": hero, "n": name, "t": rng.choice(TRAITS), "p": rng.choice(PLACES), "c": rng.choice(COLOUR_NAMES),
             "o": rng.choice(OBJECTS), "fa": a(rng.choice([friend for friend in FRIENDS if friend != hero]))}
    plot, kind = rng.choice(PLOTS)
    detail = rng.choice(["", "", " about a {h}", " about a {h}", " about a {h} called {n}", " about a {h} and a {o}"])
    if "{o}" in detail and "{o}" not in plot:
        detail = " about a {h}"
    user = say(rng, ASK + detail + "(.|, please.|)", **slots)
    user = user.replace(" a owl", " an owl").replace(" a elephant", " an elephant")
    text = say(rng, "Once upon a time there was a {t} {h} called {n}. " + plot, **slots)
    text = text.replace(" a orange", " an orange")
    return [Turn(user, text)] + pick(rng, _questions(rng, slots, plot, kind), rng.choice([0, 0, 1, 1, 2]))


def _questions(rng: Random, slots: dict[str, str], plot: str, kind: str) -> Exchange:
    """What can be asked about the story that was told."""
    name = slots["n"]
    asked = [
        Turn(say(rng, "(What was the name of the {h}|What was the {h} called|What was its name|Who was the story about)?", **slots),
             f"The {slots['h']} was called {name}.", name),
        Turn(say(rng, "(Where did it happen|Where was {n}|What place was it)?", **slots), f"It was in the {slots['p']}.", slots["p"]),
    ]
    if "{o}" in plot:
        asked.append(Turn(say(rng, "What colour was the {o}?", **slots), f"The {slots['o']} was {slots['c']}.", slots["c"]))
        asked.append(Turn(say(rng, f"What (did {{n}} {_plain(kind)}|was it that {{n}} {kind})?", **slots),
                          f"{name} {kind} a {slots['c']} {slots['o']}.".replace("a orange", "an orange"), slots["o"]))
    if "{fa}" in plot:
        asked.append(Turn(say(rng, "(Who did {n} meet|Who else was there|Who was with {n})?", **slots), f"It was {slots['fa']}.", slots["fa"].split()[1]))
    asked.append(Turn(say(rng, "(Nice story|I like it|I like that story|What a nice story|That was a good story)(!|.)"), "Thank you! Do you want to hear another story?"))
    return asked


def _plain(past: str) -> str:
    """The plain form of the verbs that the plots use."""
    return {"lost": "lose", "found": "find", "met": "meet", "heard": "hear", "wanted": "want"}[past]


def jokes(rng: Random) -> Exchange:
    """A joke; asked for another one, the next in the list."""
    at = rng.randrange(len(JOKES))
    first = say(rng, "((Please |Can you |)(tell me|tell) a (funny |)joke|Do you know a (good |)joke|Make me laugh|I want a joke|Say something funny)(.|!|?)")
    more = say(rng, "(Another one|One more|Another joke|Tell me another one|More)(.|!|, please.)")
    return [Turn(more if turn else first, JOKES[(at + turn) % len(JOKES)]) for turn in range(rng.choice([1, 1, 2]))]


def poems(rng: Random) -> Exchange:
    """Two rhyming lines."""
    subject = rng.choice(list(SUBJECTS))
    user = say(rng, "((Please |Can you |)(write|tell me|write me|say) a (short |)(poem|rhyme)|I want a (poem|rhyme)) about {x}(.|?|)", x=subject)
    return [Turn(user, SUBJECTS[subject])]


def invitation(rng: Random) -> Exchange:
    """Tiny offers a story, the user says yes or no."""
    told = [turn for turn in story(rng)][0].reply
    opener = rng.choice([
        Turn(say(rng, "(I am|I feel|I'm) (so |very |)bored(.|!)"), "Let us talk. Do you want to hear a story?"),
        Turn(say(rng, "(I am|I feel|I'm) (so |very |)sad(.|!)"), "I am sorry that you are sad. Do you want to hear a story?"),
    ])
    if rng.random() < 0.7:
        return [opener, Turn(say(rng, "(Yes|Yes, please|Yes please|Sure|Okay|Please do|That would be nice|Yes, tell me)(.|!)"), told)]
    return [opener, Turn(say(rng, "(No|No, thanks|No thank you|Not now|No, I do not)(.|!)"), "That is fine. What do you want to talk about?")]
