"""Options of stages that learn from their own answers."""

from __future__ import annotations

from ftk import Replaced, option, options

LENGTH = Replaced("max_completion_length", by="max_new_tokens")


@options(replaced=(LENGTH,))
class RolloutOptions:
    """How answers are made while training. What is sampled is ``temperature``, ``max_new_tokens`` and so on."""

    rollout_batch_size: int | None = option(
        None, help="Answers that are made at a time on each device; unset is all that are due.", minimum=1
    )
    log_completions: bool = option(False, help="Keep every answer with its reward in completions.jsonl.")
