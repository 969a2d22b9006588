"""Make the chat model that ftk-tiny carries: `python make.py OUT_DIR`, some 20 minutes on two cores.

Corpus, tokenizer and a randomly initialised model are written first; then ftk itself trains the model, as any user
would. The result is OUT_DIR/trained.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import corpus
import tokenizer as tiny_tokenizer
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
MAX_BYTES = 7_900_000  # what the plugin may carry
COUNT, SEED = 40_000, 1


def config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """1.2 million parameters: in short trials this learnt more in the same time than 1.7 or 1.9 million did."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def start(tokenizer: PreTrainedTokenizerFast, out: Path, seed: int = SEED) -> None:
    """The folder that the training starts from. Raises ValueError when the model outgrows what a plugin may carry."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config(tokenizer))  # type: ignore[no-untyped-call]
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=128
    )
    model.save_pretrained(out)
    tiny_tokenizer.save(tokenizer, out)
    size = (out / "model.safetensors").stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"model.safetensors has {size} bytes, more than {MAX_BYTES}")
    print(f"{model.num_parameters()} parameters, {size} bytes, in {out}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only-prepare", action="store_true", help="stop before the training")
    args = parser.parse_args()
    data, begun, trained = args.out / "data", args.out / "start", args.out / "trained"
    print("{} chats to learn from, {} held out".format(*corpus.write(data, COUNT, SEED, alpaca=True)))
    start(tiny_tokenizer.train(data), begun)
    if args.only_prepare:
        return
    subprocess.run(
        [
            "ftk",
            "run",
            str(HERE / "train.yaml"),
            "--model_name_or_path",
            str(begun),
            "--dataset_dir",
            str(data),
            "--output_dir",
            str(trained),
        ],
        check=True,
    )


if __name__ == "__main__":
    main()
