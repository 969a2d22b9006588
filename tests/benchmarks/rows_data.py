"""The rows of the benchmarks: 50,000 single turns and 50,000 conversations of two to four, and a small model.

    python tests/benchmarks/rows_data.py FOLDER [--demo DIR] [--rows 50000]

They are the demo rows that LLaMA-Factory ships (English with one Chinese in twenty), repeated with some words
exchanged so that no two are alike. The tokenizer is a byte-level BPE of 8,192 tokens, trained on the same demo rows,
with a ChatML template that marks answers. Everything is seeded: 50,000 rows are 10,691,792 tokens in ChatML, for ftk
and for every peer. DIR has LLaMA-Factory's ``data`` folder; by default it is looked for in ../shared/data/llamafactory.
Written are ``alpaca_50k.jsonl`` and ``sharegpt_50k.jsonl``, each with ``_messages.jsonl`` (for TRL) and
``_rendered.json`` (the texts, for a bare tokenizer), and ``model/``, a Llama of 7.6 M parameters.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parents[3] / "shared" / "data" / "llamafactory"
TOKENS = {"alpaca_50k": 10_691_792}
"""What 50,000 rows are, by the peers' own count."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% generation %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endgeneration %}{% else %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
Row = Mapping[str, str]


def make(folder: Path, demo: Path = DEMO, num: int = 50_000) -> None:
    """Write everything, unless it is there. Raises FileNotFoundError without the demo rows."""
    if (folder / "model" / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    read = {file: json.loads((demo / f"{file}_demo.json").read_text()) for file in
            ("alpaca_en", "alpaca_zh", "dpo_en", "kto_en", "glaive_toolcall_en")}  # fmt: skip
    rng = random.Random(0)
    rows = single_turns(rng, read["alpaca_en"], read["alpaca_zh"], num)
    singles = [messages_of(row) for row in rows]
    several = conversations(rng, rows, num)
    write_lines(folder / "alpaca_50k.jsonl", rows)
    write_lines(folder / "sharegpt_50k.jsonl", map(as_sharegpt, several))
    for name, sets in (("alpaca_50k", singles), ("sharegpt_50k", several)):
        write_lines(folder / f"{name}_messages.jsonl", ({"messages": one} for one in sets))
        (folder / f"{name}_rendered.json").write_text(json.dumps([chatml(one) for one in sets], ensure_ascii=False))
    write_model(folder / "model", texts_of(demo, read))


def single_turns(rng: random.Random, english: list[Row], chinese: list[Row], num: int) -> list[Row]:
    words = sorted({word for row in english for word in row["output"].split() if word.isalpha()})

    def exchanged(text: str) -> str:
        return "\n".join(
            " ".join(rng.choice(words) if word.isalpha() and rng.random() < 0.06 else word for word in line.split(" "))
            for line in text.split("\n")
        )

    rows = []
    for number in range(num):
        row = chinese[number % len(chinese)] if number % 20 == 0 else english[number % len(english)]
        change = exchanged if number >= len(english) else str
        rows.append({key: change(row[key]) for key in ("instruction", "input", "output")})
    rng.shuffle(rows)
    return rows


def conversations(rng: random.Random, rows: list[Row], num: int) -> list[list[Row]]:
    short = [row for row in rows if len(row["output"]) < 900]
    made = []
    for _ in range(num):
        turns: list[Row] = []
        for _ in range(rng.choice([2, 2, 3, 4])):
            turns += messages_of(rng.choice(short))
        made.append(turns)
    return made


def messages_of(row: Row) -> list[Row]:
    asked = row["instruction"] + (f"\n{row['input']}" if row["input"] else "")
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]


def as_sharegpt(messages: list[Row]) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    return {"conversations": [{"from": names[one["role"]], "value": one["content"]} for one in messages]}


def chatml(messages: list[Row]) -> str:
    return "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# The model


def texts_of(demo: Path, read: Mapping[str, list[Any]]) -> Iterator[str]:
    """What the tokenizer is trained on; its merges depend on the order."""
    for row in [*read["alpaca_en"], *read["alpaca_zh"]]:
        yield from (row["instruction"], row["input"], row["output"])
    for row in read["dpo_en"]:
        yield from (turn["value"] for turn in row["conversations"])
        yield from (row["chosen"]["value"], row["rejected"]["value"])
    for row in read["kto_en"]:
        yield from (turn["content"] for turn in row["messages"])
    for row in read["glaive_toolcall_en"]:
        yield from (turn["value"] for turn in row["conversations"])
        yield row["tools"]
    yield (demo / "wiki_demo.txt").read_text()
    for line in (demo / "c4_demo.jsonl").open():
        yield json.loads(line)["text"]


def write_model(folder: Path, texts: Iterable[str]) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=8192, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text for text in texts if text], trainer)
    torch.manual_seed(0)
    ids = {"eos_token_id": tokenizer.token_to_id("<|im_end|>"), "pad_token_id": tokenizer.token_to_id("<|endoftext|>")}
    config = LlamaConfig(
        vocab_size=8192, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=4096, bos_token_id=None, **ids,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 4096, "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "additional_special_tokens": list(SPECIAL[1:]),
        "chat_template": TEMPLATE,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(facts, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--demo", type=Path, default=DEMO)
    parser.add_argument("--rows", type=int, default=50_000)
    given = parser.parse_args()
    make(given.folder, given.demo, given.rows)


if __name__ == "__main__":
    main()
