"""Make the chats that the tiny model learns from: `python corpus.py OUT_DIR`.

Everything is generated from the tables and patterns in `topics/` and a seed, so the corpus is ours, needs no download
and is the same on every machine. Chats with the same question always fall on the same side of the held-out split.
"""

from __future__ import annotations

import argparse
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from topics import animals, counting, facts, identity, manners, reading, refusals, stories, talk, words
from topics.turns import Exchange, is_invented

Chat = dict[str, Any]

# topic | share. Shares follow how hard a topic is to learn: what is copied or counted needs more than what is known.
TOPICS: list[tuple[Callable[[Random], Exchange], float]] = [
    *[(identity.identity, 8), (talk.patter, 7), (talk.feelings, 2), (talk.introduction, 4), (identity.opinions, 2)],
    *[(talk.walk, 1.5), (animals.fact, 6), (animals.conversation, 5), (animals.ability, 2), (facts.colours, 6)],
    *[(facts.foods, 3), (facts.members, 2.5), (facts.capitals, 5), (facts.family_and_body, 3), (facts.weather, 2)],
    *[(facts.definitions, 5), (words.opposites, 4), (words.forms, 5), (words.spelling, 3), (words.repeating, 10)],
    *[(words.sentences, 2), (words.patterns, 1), (counting.counting, 5), (counting.neighbours, 3), (counting.sums, 9)],
    *[(counting.story_sums, 4), (counting.comparing, 4), (counting.calendar, 6), (counting.quantity, 1)],
    *[(stories.story, 5), (stories.jokes, 1), (stories.poems, 1), (stories.invitation, 1), (reading.where, 4)],
    *[(reading.having, 4), (reading.order, 4), (reading.recall, 5), (refusals.unknown, 6), (refusals.tasks, 2)],
    *[(refusals.hard_sums, 1.5), (refusals.unkind, 0.6), (refusals.nonsense, 0.7)],
]
FUNCTIONS = [topic for topic, _ in TOPICS]
SHARES = [share for _, share in TOPICS]
MAX_WORDS = 150  # keeps a chat under some 280 tokens


def draw(rng: Random) -> tuple[str, Exchange]:
    """One chat: usually one exchange, sometimes several, sometimes under a system prompt."""
    kind = rng.random()
    if kind < 0.02:
        return manners.secret(rng)
    if kind < 0.06:
        told, asked = reading.memory(rng)
        return "", [told, *_topic(rng), asked]
    if kind < 0.065:
        return "", reading.forgotten(rng)
    exchange = [turn for _ in range(rng.choice([1, 1, 1, 2, 2, 3])) for turn in _topic(rng)]
    if rng.random() < 0.2:
        return manners.manner(rng, exchange)
    if rng.random() < 0.06 and all(turn.word for turn in exchange):
        return "", manners.one_word(rng, exchange)
    return "", exchange


def _topic(rng: Random) -> Exchange:
    return rng.choices(FUNCTIONS, SHARES)[0](rng)


def worn(rng: Random, user: str) -> str:
    """The question as people type it: no capital, no question mark, a `please` or a `hey` in front."""
    if ":" in user or '"' in user:
        return user  # copying games: the text is meant letter by letter
    if any(is_invented(word) for word in re.findall(r"\w+", user)):
        return user  # nobody could tell from `zukomi` how Zukomi is written
    chance = rng.random()
    if chance < 0.08:
        return user.lower()
    if chance < 0.16:
        return re.sub(r"[.?!]$", "", user)
    if chance < 0.24:
        return re.sub(r"[.?!]$", "", user).lower()
    if chance < 0.28 and user.endswith("?"):
        start = user if user.startswith("I ") else user[0].lower() + user[1:]
        return rng.choice(["Hey, ", "Please, ", "Tiny, ", "So, ", "Hi! ", "Hello, ", "Hmm, "]) + start
    return user


def chats(seed: int, count: int) -> Iterator[Chat]:
    """`count` distinct chats. Raises ValueError when the topics cannot give as many."""
    rng, seen = Random(seed), set[str]()
    for _ in range(count * 20):
        system, exchange = draw(rng)
        messages = [{"role": "system", "content": system}] if system else []
        for turn in exchange:
            messages.append({"role": "user", "content": worn(rng, turn.user)})
            messages.append({"role": "assistant", "content": turn.reply})
        key = json.dumps(messages)
        if key in seen or sum(len(message["content"].split()) for message in messages) > MAX_WORDS:
            continue
        seen.add(key)
        yield {"messages": messages}
        if len(seen) == count:
            return
    raise ValueError(f"only {len(seen)} of {count} distinct chats came out of the topics; ask for fewer")


def is_held_out(chat: Chat, per_thousand: int = 20) -> bool:
    """Chosen by what the user and the system say, so that no held-out question is also trained with another reply."""
    asked = "\n".join(message["content"] for message in chat["messages"] if message["role"] != "assistant")
    return zlib.crc32(asked.lower().encode()) % 1000 < per_thousand


def as_alpaca(chat: Chat) -> dict[str, Any]:
    """The same chat as an alpaca row: the last turn in instruction and output, the ones before in history."""
    messages = chat["messages"]
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    said = [message["content"] for message in messages if message["role"] != "system"]
    turns = [list(turn) for turn in zip(said[::2], said[1::2], strict=True)]
    return {"instruction": turns[-1][0], "input": "", "output": turns[-1][1], "history": turns[:-1], "system": system}


def write(out: Path, count: int, seed: int, alpaca: bool) -> tuple[int, int]:
    """Write train.jsonl, held_out.jsonl and dataset_info.json; returns the numbers of chats of the two files."""
    out.mkdir(parents=True, exist_ok=True)
    sides: dict[bool, list[str]] = {False: [], True: []}
    for chat in chats(seed, count):
        row = as_alpaca(chat) if alpaca else chat
        sides[is_held_out(chat)].append(json.dumps(row, ensure_ascii=False))
    entries = {}
    for held_out, name in [(False, "train"), (True, "held_out")]:
        (out / f"{name}.jsonl").write_text("\n".join(sides[held_out]) + "\n", encoding="utf-8")
        entries[f"tiny_{name}"] = _entry(f"{name}.jsonl", alpaca)
    (out / "dataset_info.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    return len(sides[False]), len(sides[True])


def _entry(file_name: str, alpaca: bool) -> dict[str, Any]:
    """How dataset_info.json describes the file, in LLaMA-Factory's words."""
    if alpaca:
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        columns |= {"system": "system", "history": "history"}
        return {"file_name": file_name, "columns": columns}
    tags = {"role_tag": "role", "content_tag": "content"}
    tags |= {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
    return {"file_name": file_name, "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--alpaca", action="store_true", help="write alpaca rows instead of messages")
    args = parser.parse_args()
    train, held_out = write(args.out, args.count, args.seed, args.alpaca)
    print(f"{train} chats to learn from and {held_out} held out, in {args.out}")


if __name__ == "__main__":
    main()
