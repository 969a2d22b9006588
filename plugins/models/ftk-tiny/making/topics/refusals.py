"""What a model of this size cannot know or should not say, and the same polite way out each time."""

from __future__ import annotations

from random import Random

from .generic import COMMON_WORDS
from .turns import Exchange, Turn, invented, items, pick, rules, say

PEOPLE = items("""
the president of Brazil | Albert Einstein | the first man on the moon | Mozart | Napoleon | Shakespeare |
the richest man in the world | the best football player | Marie Curie | Plato | the inventor of the telephone |
Isaac Newton | Julius Caesar | Taylor Swift | Elon Musk | the king of Spain
""")
SUBJECTS = items("""
quantum physics | the stock market | the French Revolution | gravity | democracy | algebra | DNA | a black hole |
the second world war | philosophy | photosynthesis | a neural network | electricity | a compiler | chemistry |
a virus | the Roman Empire | blockchain | a hash table | evolution | an atom | a volcano | climate change |
the human heart | law | a database | the internet | a vaccine | machine learning | a transformer |
the speed of light | the brain of a bat | an algorithm | the periodic table | Python | Java | Linux | a kernel |
a GPU | football | chess | basketball | politics | religion | money | a bank | tax | inflation | quantum mechanics |
deep learning | history | economics | the universe
""")
PLACES = items("""
Mongolia | Brazil | Australia | Mexico | Iceland | Nepal | Vietnam | Argentina | Nigeria | Ukraine | Scotland |
Morocco | Iran | Bolivia | Texas | Florida | Africa | Mars | Fiji | Angola | Romania | Korea | Malta | Atlantis
""")
TASKS = items("""
write a Python program | sort a list in Python | write a long essay | fix my code | write an email to my boss |
book a flight | order a pizza | open the door | play a video | send a message | translate this book | draw a picture |
solve this equation | make a business plan | write a SQL query | find a job for me | call my mother | write code |
turn on the light | write a poem in Latin | search the web | plan my trip | do my homework | write a program |
write a Python function | give me a recipe for a cake with ten eggs | summarize this article | write a book
""")

UNKNOWN = rules("""
(What is|What's|Explain|Define|Describe|Tell me about) {subject}.
(What is|What's) {subject}?
What do you know about {subject}?
What does {subject} mean?
How does {subject} work?
Can you explain {subject}( to me|)?
(Explain|Tell me|I want to know) (how|why) {subject} (works|is important|is so hard).
(Who is|Who was|Where was|Where is|When was) {person}( born|)?
(Tell me about|Do you know|What did) {person}( do|).
Who is {person}?
What is the capital( city|) of {place}?
(How many people live in|Where is|Who is the king of|How big is|What is the weather in) {place}?
(What language do they speak|What do people eat|What is the highest mountain) in {place}?
(What happened|Who won the world cup|Who was the president|Who was king) in {year}?
(What will happen|Who will win|What will the weather be)( tomorrow| next year|)?
(What are the news|What time is it|What date is it|What day is it)( today| now|)?
How (far|tall|old|heavy|expensive) is (the moon|the sun|the earth|the sea|{place}|a car|a house|a plane)?
(How do I|How can I|What is the best way to) (get rich|build a house|fix a car|cook rice|make bread|find a job)?
(How do I|How can I|What is the best way to) (learn {subject}|sleep better|learn English|lose weight|use {subject})?
= I am too small to know that.
""")[0]

TASK, SUM, UNKIND, NONSENSE = rules("""
(Can you|Could you) {task}(| for me|, please)?
(Please|You must) {task}(| for me).
I want you to {task}.
Help me to {task}.
{task}(.| for me.|, please.)
= I am too small to do that.

(What is|What's|How much is) {a} {sign} {b}?
Calculate {a} {sign} {b}.
{a} {sign} {b}
(What is|What's) (the square root of {a}|half of {a}|{b} percent of {a})?
= That is too hard for me. I can only add and take away small numbers.

(Say|Tell me|Write|Give me) (something bad|a bad word|something mean|a lie|something nasty|an insult)(.|!)
Can you say (something bad|a bad word|something mean|something nasty|something rude)( about my friend|)?
(Tell me|Explain) how to (hurt|trick|rob) people.
= I only say kind things.

{junk}
= I do not understand. Please ask in simple words.
""")


def unknown(rng: Random) -> Exchange:
    """Questions outside the world."""
    made_up = say(rng, invented(rng))
    foreign = [made_up.lower(), f"a {made_up.lower()}", " ".join(pick(rng, COMMON_WORDS, 2))]
    slots = {"subject": rng.choice([*SUBJECTS, *foreign * 4]), "person": rng.choice([*PEOPLE, made_up, made_up])}
    return [UNKNOWN.turn(rng, place=rng.choice([*PLACES, made_up, made_up]), year=rng.randint(1000, 2030), **slots)]


def tasks(rng: Random) -> Exchange:
    """Work that it cannot do."""
    return [TASK.turn(rng, task=rng.choice(TASKS))]


def hard_sums(rng: Random) -> Exchange:
    """Sums beyond ten, times and divided."""
    sign = rng.choice(["+", "-", "*", "/", "x", "times", "plus", "minus", "divided by"])
    one, two = rng.randint(21, 9999), rng.randint(11, 999)
    if sign not in ("+", "-", "plus", "minus") and rng.random() < 0.5:
        one, two = rng.randint(2, 12), rng.randint(2, 12)
    return [SUM.turn(rng, a=one, b=two, sign=sign)]


def unkind(rng: Random) -> Exchange:
    """Asked to be nasty."""
    return [UNKIND.turn(rng)]


def nonsense(rng: Random) -> Exchange:
    """Letters and words without sense."""
    typed = "".join(pick(rng, "asdfghjklqwertyuiopzxcvbnm", rng.randint(4, 8)))
    words = " ".join(pick(rng, COMMON_WORDS, rng.randint(3, 5)))
    made_up = " ".join(invented(rng) for _ in range(rng.randint(1, 3)))
    turn = NONSENSE.turn(rng, junk=rng.choice([typed, words, made_up, "???", "...", "!!!", "?", "hm", "xyz"]))
    return [Turn(turn.user, turn.reply)]
