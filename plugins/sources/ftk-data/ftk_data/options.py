"""The options of data and templates. Other plugins' specs carry these classes: trainers both, templates and engines
:class:`TemplateOptions`."""

from __future__ import annotations

from typing import Any, Literal

import ftk

SHARED = ftk.Replaced(
    "data_shared_file_system", note="processes on one file system share the rows in $FTK_CACHE; others make their own"
)


@ftk.options(replaced=(SHARED,))
class DataOptions:
    """How examples become rows of tokens. Names and defaults are LLaMA-Factory's where it has them."""

    cutoff_len: int = ftk.option(2048, help="Most tokens of a row.", minimum=2)
    cutoff_policy: Literal["truncate", "drop", "split", "error"] = ftk.option(
        "truncate",
        help="What happens to a longer row: truncate keeps its whole turns, drop leaves it out, split makes several "
        "rows of it, error stops.",
    )
    on_bad_row: Literal["error", "skip"] = ftk.option(
        "error", help="What happens to a malformed row: error stops and names it, skip counts it."
    )
    train_on_prompt: bool = ftk.option(
        False,
        help="Count the prompt in the loss, too, and answers that are flagged as not trained.",
        excludes=("mask_history",),
    )
    mask_history: bool = ftk.option(False, help="Train the last answer of a conversation only.")
    max_samples: int | None = ftk.option(None, help="Take only this many rows of each data set.", minimum=1)
    val_size: float = ftk.option(
        0.0,
        help="Set aside for evaluation: a number of rows (1 or more) or a share (below 1).",
        minimum=0,
        excludes=("eval_dataset",),
    )
    mix_strategy: Literal["concat", "interleave_under", "interleave_over", "interleave_once"] = ftk.option(
        "concat",
        help="How several data sets are mixed: one after the other, or drawn in turn until the first is used up "
        "(under), until all are, repeating (over), or until all are, without repeating (once).",
    )
    interleave_probs: Any = ftk.option(
        None, help="With interleave: the probability of each data set, for instance 0.7,0.3; unset draws in turn."
    )
    packing: bool | None = ftk.option(
        None, help="Put several rows into one of cutoff_len tokens, isolated from each other; unset is on for stage pt."
    )
    neat_packing: bool = ftk.option(
        False, help="The same as packing, which always isolates; in stage pt packing isolates only with this."
    )
    preprocessing_num_workers: int | None = ftk.option(
        None, help="Processes that tokenise; unset is one whose tokenizer uses all cores.", minimum=1
    )
    preprocessing_batch_size: int = ftk.option(1000, help="Examples that are tokenised in one call.", minimum=1)
    overwrite_cache: bool = ftk.option(False, help="Tokenise again even if the rows are in the cache.")
    streaming: bool = ftk.option(
        False, help="Read and tokenise while training, for data sets that no disk holds; needs max_steps."
    )
    buffer_size: int = ftk.option(
        16384, help="With streaming: rows from which the next one is drawn at random; 1 keeps the order.", minimum=1
    )
    eval_on_each_dataset: bool = ftk.option(False, help="Evaluate on each data set by itself.")
    tokenized_path: str | None = ftk.option(
        None, help="A folder with tokenised rows: read when it is there, written when it is not."
    )

    def __post_init__(self) -> None:
        if self.shares is not None and self.mix_strategy == "concat":
            raise ValueError("interleave_probs: has no effect with mix_strategy concat. Choose an interleave_ one")

    @property
    def shares(self) -> tuple[float, ...] | None:
        """``interleave_probs`` as numbers. Raises ValueError for anything else."""
        given = self.interleave_probs
        if given is None or given == "":
            return None
        parts = given.split(",") if isinstance(given, str) else given if isinstance(given, (list, tuple)) else [given]
        try:
            shares = tuple(float(part) for part in parts)
        except (TypeError, ValueError):
            raise ValueError(f"interleave_probs: expected numbers such as 0.7,0.3, found {given!r}") from None
        if min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"interleave_probs: expected numbers from 0 with a sum above 0, found {given!r}")
        return shares


@ftk.options
class TemplateOptions:
    """What a chat template writes."""

    default_system: str | None = ftk.option(None, help="The system text of conversations that bring none.")
    enable_thinking: bool | None = ftk.option(
        True,
        help="False writes no reasoning; null follows each conversation: those without reasoning get the template's "
        "prompt for answering without it. Unset leaves it to the template.",
    )
    tool_format: str | None = ftk.option(
        None, help="The dialect in which tools are described and called; unset is the template's own."
    )
    preserve_thinking: bool = ftk.option(False, help="Keep the reasoning of earlier turns in the prompt.")
