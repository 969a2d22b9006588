"""Train the tokenizer of the tiny model and save it: `python tokenizer.py CORPUS_DIR OUT_DIR`.

Byte-level BPE, so every text of every language encodes without loss. Numbers are not cut into digits: the tiny world
counts to twenty, and a sum of two tokens is easier to learn than one of four.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from topics.generic import COMMON_WORDS, FRAGMENTS
from topics.turns import SYLLABLES, capital
from topics.world import BOT_NAMES, NAMES, OBJECTS, PET_NAMES
from transformers import PreTrainedTokenizerFast

VOCABULARY = 2560
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
GENERIC_REPEATS = 40  # how often each word from outside the tiny world counts, against some 2 million words of chat

# The generation markers give exact masks of what the assistant says, with the stop token and without the newline.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' -}}
    {%- if message['role'] == 'assistant' -%}
        {%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}
    {%- else -%}
        {{- message['content'] + '<|im_end|>' -}}
    {%- endif -%}
    {{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def texts(corpus: Path) -> Iterator[str]:
    """What the merges are learnt from: the chats, the words that only real data sets use, and names.

    Names get a token with and one without the blank before, or else copying a name to the start of a reply is spelling.
    """
    with (corpus / "train.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield from _strings(json.loads(line))
    for word in COMMON_WORDS + FRAGMENTS:
        yield from [f" {word}"] * GENERIC_REPEATS
    for word in [*NAMES, *PET_NAMES, *BOT_NAMES, *OBJECTS, *SYLLABLES]:
        yield from [word, capital(word), f" {capital(word)}"] * GENERIC_REPEATS


def _strings(node: object) -> Iterator[str]:
    """Every text in a row, whether it is written as messages or as alpaca; the role names do no harm."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for child in node.values():
            yield from _strings(child)
    elif isinstance(node, list):
        for child in node:
            yield from _strings(child)


def train(corpus: Path) -> PreTrainedTokenizerFast:
    """The tokenizer, with its special tokens and chat template. It puts no special token around a plain text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in (PAD, START, END)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(corpus), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens=[START],
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def save(tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Save in a form that transformers 4 and 5 both load: version 5 writes a key that 4 reads as something else."""
    tokenizer.save_pretrained(out)
    path = out / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    tokenizer = train(args.corpus)
    save(tokenizer, args.out)
    print(f"{len(tokenizer)} tokens, in {args.out}")


if __name__ == "__main__":
    main()
