"""Short stories with questions about them, jokes and rhymes."""

from __future__ import annotations

from random import Random

from .turns import Exchange, Rule, Turn, a, items, pick, rules, say, word_list
from .world import COLOUR_NAMES, NAMES, OBJECTS, PET_NAMES, PLACES

HEROES = word_list("cat dog mouse bear fox rabbit duck frog lion elephant bird owl penguin horse pig monkey tiger")
TRAITS = word_list("little kind brave shy clever happy")

# Slots: name, place, thing (`a red ball`), friend (`an owl`). `[past present]` is what happened to the thing.
PLOTS = rules("""
= One day {name} lost {thing}. {name} looked in the {place} and found it there. {name} was very happy. [lost lose]

= One day {name} found {thing} in the {place}. It belonged to {friend}. They became good friends. [found find]

= One day it rained very hard. {name} met {friend} in the {place} and they stayed dry together. Soon the sun came out.

= One night {name} heard a loud noise in the {place}. {name} was afraid, but it was only {friend}. They both laughed.

= {name} wanted {thing} more than anything. {name} worked in the {place} every day and got it at last. [wanted want]

= {name} had no friends and was sad. In the {place} {name} met {friend}. They played all day and were happy.
""")

ASK = (
    "(Please |Can you |)(tell|write|tell me|write me) (a|a short|a little) story{detail}.",
    "I want (to hear |)a story{detail}.",
    "Do you know a (short |)story{detail}?",
    "(Tell me a story|Story|A story){detail}(, please|)!",
    "Tell me a (short |)story{detail}.",
)

NAME_OF, PLACE_OF, COLOUR_OF, THING_OF, FRIEND_OF, PRAISE = rules("""
What was the name of the {hero}?
What was the {hero} called?
What was its name?
Who was the story about?
= The {hero} was called {name}. [{name}]

Where did it happen?
Where was {name}?
In what place was it?
= It was in the {place}. [{place}]

What colour was the {object}?
= The {object} was {colour}. [{colour}]

What did {name} {present}?
What was it that {name} {past}?
= {name} {past} {thing}. [{object}]

Who did {name} meet?
Who else was there?
Who was with {name}?
= It was {friend}. [{friend_word}]

(Nice story|I like it|I like that story|What a nice story|That was a good story)(!|.)
= Thank you! Do you want to hear another story?
""")

JOKES = items("""
Why did the hen cross the road? To get to the other side! |
What has four legs but cannot walk? A table! |
Why is the book so sad? It has too many problems! |
What has hands but cannot clap? A clock! |
What gets wet when it dries? A towel! |
What do you call a bear with no teeth? A gummy bear!
""")
ASK_JOKE = (
    "(Please |Can you |)(tell me|tell) a (funny |)joke.",
    "Do you know a (good |)joke?",
    "(Make me laugh|I want a joke|Say something funny)(.|!)",
)
MORE = ("(Another one|One more|Another joke|Tell me another one|More)(.|!|, please.)",)

POEMS = rules(r"""
the sun
= The sun is up, the sky is blue,\nthe birds all sing a song for you.

a cat
= A little cat sat on a mat,\nit saw a mouse, and that was that.

rain
= The rain comes down, the flowers drink,\nthe world is greener than you think.

the moon
= The moon is round, the moon is bright,\nit shines on us the whole long night.

a dog
= My little dog can run and play,\nhe stays with me the whole long day.

winter
= The snow is white, the wind is cold,\nwe hear the stories that are told.

the sea
= The sea is wide, the sea is deep,\nit sings the little fish to sleep.

a tree
= The tree is tall, the tree is green,\nthe finest tree that I have seen.
""")
ASK_POEM = (
    "(Please |Can you |)(write|tell me|write me|say) a (short |)(poem|rhyme) about {subject}.",
    "I want a (poem|rhyme) about {subject}.",
)

SAD, BORED, YES, NO = rules("""
(I am|I feel|I'm|I am feeling|I'm feeling) (so |very |really |)sad( today|)(.|!)
= I am sorry that you are sad. Do you want to hear a story?

(I am|I feel|I'm) (so |very |really |)bored( today|)(.|!)
= Let us talk. Do you want to hear a story?

(Yes|Yes, please|Yes please|Sure|Okay|Please do|That would be nice|Yes, tell me|Yes, I do)(.|!|)
= {story}

(No|No, thanks|No thank you|Not now|No, I do not)(.|!|)
= That is fine. What do you want to talk about?
""")


def story(rng: Random) -> Exchange:
    """A story of four or five sentences, asked for with more or less detail, then questions about it."""
    hero = rng.choice([*HEROES, "girl", "boy"])
    name = rng.choice(NAMES if hero in ("girl", "boy") else PET_NAMES)
    colour, thing = rng.choice(COLOUR_NAMES), rng.choice(OBJECTS)
    friend = rng.choice([animal for animal in HEROES if animal != hero])
    plot = rng.choice(PLOTS)
    past, _, present = plot.word.partition(" ")
    slots = {"hero": hero, "name": name, "colour": colour, "object": thing, "thing": f"{a(colour)} {thing}"}
    slots |= {"friend": a(friend), "friend_word": friend, "place": rng.choice(PLACES), "past": past, "present": present}
    detail = rng.choice(["", "", f" about {a(hero)}", f" about {a(hero)}", f" about {a(hero)} called {name}"])
    if past and rng.random() < 0.2:
        detail = f" about {a(hero)} and {a(thing)}"
    text = say(
        rng, f"Once upon a time there was a {rng.choice(TRAITS)} {{hero}} called {{name}}. {plot.reply}", **slots
    )
    exchange = [Turn(say(rng, rng.choice(ASK), detail=detail), text)]
    questions = [rule.turn(rng, **slots) for rule in _questions(plot)]
    return exchange + pick(rng, questions, rng.choice([0, 0, 1, 1, 2]))


def _questions(plot: Rule) -> list[Rule]:
    """What can be asked about the story that was told."""
    of_thing = [COLOUR_OF, THING_OF] if plot.word else []
    of_friend = [FRIEND_OF] if "{friend}" in plot.reply else []
    return [NAME_OF, PLACE_OF, PRAISE, *of_thing, *of_friend]


def jokes(rng: Random) -> Exchange:
    """A joke; asked for another one, the next in the list."""
    at = rng.randrange(len(JOKES))
    asks = [ASK_JOKE, MORE, MORE][: rng.choice([1, 1, 2, 3])]
    return [Turn(say(rng, rng.choice(ask)), JOKES[(at + turn) % len(JOKES)]) for turn, ask in enumerate(asks)]


def poems(rng: Random) -> Exchange:
    """Two rhyming lines."""
    rule = rng.choice(POEMS)
    return [rule.follow(rng, ASK_POEM, subject=rule.asks[0])]


def invitation(rng: Random) -> Exchange:
    """Tiny offers a story, the user says yes or no."""
    opener = rng.choice([SAD, BORED]).turn(rng)
    answer = rng.choice([YES, YES, NO]).turn(rng, story=story(rng)[0].reply)
    return [opener, answer]
