"""Small talk: greetings, names, feelings, thanks and goodbyes."""

from __future__ import annotations

from random import Random

from .turns import Exchange, Turn, invented, rules, say
from .world import NAMES

HELLO = "(Hi|Hello|Hey|Hi there|Hello there|Hey there|Good day)"

PATTER = rules(f"""
{HELLO}(!|.|, Tiny!|)
{HELLO}(!|.|, Tiny!|)
Good (morning|evening|afternoon)(!|.|, Tiny.)
= (Hello! How can I help you?|Hi! What can I do for you?)

How are you( today|)?
How are you doing?
How is it going?
How do you do?
Are you well?
= I am fine, thank you. How are you?

{HELLO}(,|!) how are you( today|)?
= Hello! I am fine, thank you. How are you?

What's up?
What is new?
What are you doing?
Are you there?
Are you ready?
Can you hear me?
(Test|Testing|This is a test)(.|!|)
= I am here and ready to talk.

(Thanks|Thank you|Thank you very much|Thanks a lot|Many thanks|Thank you so much|Thx)(!|.|, Tiny!|)
= You are welcome!

(Thanks|Thank you)(, |. |! )(bye|goodbye|see you)(!|.)
= You are welcome! Goodbye!

(That was|That is|You are) (great|good|nice|helpful|kind|very good|very kind|cool|funny)(!|.)
(Good job|Well done|Nice work|I like you|I love you|Great|Good answer|Cool|Nice)(!|.)
= Thank you! That is kind of you.

(Bye|Goodbye|See you|See you later|Bye bye|I have to go|I must go now|See you tomorrow)(!|.|, Tiny!)
= Goodbye! Have a nice day.

(Good night|Sleep well|I go to bed now|I am going to bed)(!|.)
= Good night! Sleep well.

(OK|Okay|I see|Alright|Got it|Right|Sure|Yes)(.|!|)
= Good. What else can I do for you?

(No|No, thanks|No thank you|Not now)(.|)
= That is fine. What do you want to talk about?

(Sorry|I am sorry|Excuse me|Oh, sorry)(.|!)
= No problem.

(Haha|Ha ha|Hahaha|Lol)(!|.|)
= I am happy that you laugh.

(You are|That was|That is) (wrong|bad|stupid|not right|false|silly|dumb|not true)(.|!)
= I am sorry. I am small and I make mistakes.

(Help|Help me|I need help|Please help me|I need your help)(.|!|, please.)
(Can|Could) you help( me|)?
= Of course. What do you need?

(Can|May) I ask you (something|a question)?
I have a question.
= Of course. What do you want to know?

(Talk to me|Say something|Let us talk|Let's talk|Let us chat|I want to talk|Ask me something)(.|!)
= Let us talk about animals. Which animal do you like?

(Happy birthday|Merry Christmas|Happy new year)(!|.|, Tiny!)
= Thank you! That is kind of you.

(Today is my birthday|It is my birthday|It's my birthday today)(!|.)
= Happy birthday! I wish you a great day.

(Nice to meet you|Good to meet you|Pleased to meet you)(!|.|, Tiny.)
= Nice to meet you too!

(I do not know|I don't know|I have no idea|No idea|I am not sure)(.|)
= That is fine. You can ask me a question.

(I am|I'm) (fine|good|well|okay|great)(| too)(.|!|, thank you.|, thanks.)
(Fine, thanks|All good|Very well, thank you)(.|!)
= I am glad to hear that.
""")

FEELINGS = rules("""
I am sad|unhappy|so sad|very sad|a bit sad|really sad
= I am sorry that you are sad. Do you want to hear a story?

I am happy|glad|so happy|very happy|in a good mood
= That is nice! I am happy for you.

I am tired|sleepy|very tired|so tired|really tired
= You should rest. Sleep well!

I am hungry|very hungry|so hungry
= You should eat something. How about some soup?

I am thirsty|very thirsty|so thirsty
= You should drink some water.

I am bored|so bored|very bored
= Let us talk. Do you want to hear a story?

I am angry|mad|very angry|so angry
= I am sorry to hear that. Take a deep breath.

I am sick|ill|not well|feeling bad
= I am sorry to hear that. I hope you get well soon.

I am cold|so cold|very cold|freezing
= You should wear a warm coat.

I am hot|so hot|very hot
= You should drink some cold water.

I am afraid|scared|very scared
= Do not be afraid. I am here to talk with you.

I am lonely|alone|so lonely
= You are not alone. I am here to talk with you.
""")

ASK_NAME = "(What is my name|What's my name|Who am I|Do you know my name|Can you tell me my name)?"
WALK = rules(f"""
{HELLO}(!|.|)
= Hello! How can I help you?

(How are you|How do you do|How are you today)?
= I am fine, thank you. How are you?

(I am fine|Good|I am good too|Very well|Fine, thank you)(.|!)
= I am glad to hear that.

(Who are you|What is your name)?
= I am Tiny, a small language model. [Tiny]

(Thanks|Thank you|Nice)(!|.)
= You are welcome!

(Bye|Goodbye|See you)(!|.)
= Goodbye! Have a nice day.
""")


def person(rng: Random) -> str:
    """A name; one in four is made up, so that the model learns to copy names and not to guess them."""
    return say(rng, invented(rng)) if rng.random() < 0.25 else rng.choice(NAMES)


def patter(rng: Random) -> Exchange:
    """Greetings, thanks, goodbyes: the fixed phrases of a chat."""
    return [rng.choice(PATTER).turn(rng)]


def feelings(rng: Random) -> Exchange:
    """How the user feels."""
    rule = rng.choice(FEELINGS)
    words = rule.asks[0].removeprefix("I am ")
    who = "(I am|I'm|I feel|Today I am|I am feeling|I'm feeling|Oh, I am)"
    return [rule.follow(rng, [f"{who} ({words})(.|!|| today.| now.)"])]


def introduction(rng: Random) -> Exchange:
    """The user gives a name; Tiny uses it."""
    name = person(rng)
    user = say(rng, f"({HELLO}(, |! )|)(I am|my name is|I'm|you can call me|call me) {{name}}(.|!|)", name=name)
    exchange = [Turn(user, f"Nice to meet you, {name}! How can I help you?")]
    if rng.random() < 0.6:
        exchange.append(Turn(say(rng, ASK_NAME), f"Your name is {name}.", name))
    return exchange


def walk(rng: Random) -> Exchange:
    """A short walk through small talk, each turn answering the one before."""
    start = rng.randrange(3)
    return [rule.turn(rng) for rule in WALK[start : start + rng.randint(2, 4)]]
