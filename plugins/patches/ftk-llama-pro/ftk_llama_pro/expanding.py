"""Writing a model with new blocks, and making sure that it is the same model."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import torch
from ftk import ModelError, rundir
from ftk_training.stack import stack_of
from torch import nn

from ftk_llama_pro.blocks import NEW, Calls, silenced


def expand(model: Any, count: int) -> list[int]:
    """Put ``count`` new blocks into the model, in place, and return their numbers (from 0).

    The blocks are split into ``count`` equal groups; a silenced copy of each group's last block follows it (Wu et al.
    2024, section 3.2). Raises ModelError when the groups would not be equal, or when a block cannot be silenced.
    """
    _, stack = stack_of(model)
    if not 1 <= count <= len(stack) or len(stack) % count:
        can = ", ".join(str(one) for one in range(1, len(stack) + 1) if len(stack) % one == 0)
        raise ModelError(
            f"--num-expand {count}: {len(stack)} blocks cannot be split into as many groups. Take one of {can}"
        )
    size = len(stack) // count
    copied = range(size - 1, len(stack), size)
    new = {number: silenced(stack[number], calls) for number, calls in _calls(model, stack, copied).items()}
    order: list[int] = []
    blocks: list[nn.Module] = []
    for number, block in enumerate(stack):
        for one in [block, new[number]] if number in new else [block]:
            order.append(number)
            blocks.append(one)
    for place, block in enumerate(blocks):
        for module in block.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = place
    stack._modules.clear()
    stack.extend(blocks)
    _lengthen(model.config.get_text_config(), order)
    added = [place for place in range(1, len(order)) if order[place] == order[place - 1]]
    setattr(model.config, NEW, added)
    return added


def _calls(model: Any, stack: nn.ModuleList, numbers: range) -> dict[int, Calls]:
    found = {number: Calls() for number in numbers}
    hooks = [hook for number, calls in found.items() for hook in calls.watch(stack[number])]
    try:
        _logits(model)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _lengthen(config: Any, order: list[int]) -> None:
    """Lists of the config that have an entry for each block get one for the new ones."""
    length = max(order) + 1
    fields = {name: value for name, value in vars(config).items() if isinstance(value, list) and len(value) == length}
    config.num_hidden_layers = len(order)
    for name, value in fields.items():
        setattr(config, name, [copy.copy(value[number]) for number in order])


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    """(1, T, V) of a fixed text, the same for every model of the vocabulary."""
    words = model.config.get_text_config().vocab_size
    ids = (torch.arange(24) * 7919 + 11) % words
    logits: torch.Tensor = model.eval()(input_ids=ids[None].to(model.device), use_cache=False).logits
    return logits


def write_expanded(model: Any, tokenizer: Any, count: int, folder: Path) -> list[int]:
    """Expand the model and write it with its tokenizer or processor into a new folder; return the new numbers.

    What was written is read again beside it, so memory must hold two.
    Raises ModelError when what was written is not the same model, bit by bit in its logits; then nothing is left.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ModelError(f"output_dir: {folder} is not empty. Give a new folder")
    kind, wanted = type(model), _logits(model)
    added = expand(model, count)
    aside = folder.with_name(f"{rundir.ASIDE}{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        dtype = model.dtype
        _compare(kind, aside, dtype, wanted)
        if folder.exists():
            folder.rmdir()
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return added


def _compare(kind: Any, folder: Path, dtype: torch.dtype, wanted: torch.Tensor) -> None:
    try:
        again, info = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except (RuntimeError, ValueError, OSError) as cause:
        raise ModelError(
            f"{kind.__name__}: cannot be read with new blocks: {' '.join(str(cause).split())[:200]}"
        ) from cause
    if names := sorted({*info["missing_keys"], *info["unexpected_keys"]}):
        raise ModelError(f"{kind.__name__}: gives a new block other weights than the one it copies: {names[0]}")
    if (apart := float((_logits(again) - wanted).abs().max())) > 0:
        raise ModelError(
            f"{kind.__name__}: with new blocks its logits differ by {apart:.1e}, so it counts on its depth"
        )
