"""``ftk llama-pro``."""

from __future__ import annotations

from pathlib import Path

import click
from ftk import ConfigError
from ftk.opening import open_run
from transformers.utils import logging

from ftk_llama_pro.expanding import write_expanded


@click.command(
    context_settings={
        "ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"],
    }
)  # fmt: skip
@click.argument("source", metavar="SOURCE")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--num-expand", "--num_expand", type=int, required=True, metavar="N", help="How many blocks are added.")
def llama_pro(source: str, words: tuple[str, ...], num_expand: int) -> None:
    """Write a copy of a model with N new blocks that change nothing yet.

    SOURCE is a YAML or a model: a folder, a name on the hub or an ftk:// address. --output_dir says where the expanded
    model goes; other keys may follow, for instance --infer_dtype bfloat16.
    """
    is_yaml = source.endswith((".yaml", ".yml"))
    given = [*words] if is_yaml else ["--model_name_or_path", source, *words]
    run = open_run("llama-pro", source if is_yaml else None, given, base=True)
    if not run.value("output_dir"):
        raise ConfigError("output_dir: not set. Say where the expanded model goes: --output_dir models/expanded")
    logging.disable_progress_bar()
    tokenizer = run.processor or run.tokenizer
    model = run.model(trainable=False)
    if getattr(model, "quantization_method", None) is not None:
        raise ConfigError(f"{source}: is quantised. Expand the model that it was made from")
    before = model.num_parameters()
    added = write_expanded(model, tokenizer, num_expand, Path(run.value("output_dir")))
    click.echo(
        f"{len(added)} new blocks: {', '.join(map(str, added))}; {before:,} parameters before, the same logits after"
    )
    click.echo(f"the model is in {run.value('output_dir')}; train it with use_llama_pro: true")
