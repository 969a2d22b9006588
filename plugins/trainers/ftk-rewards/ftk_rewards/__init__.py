"""What judges answers while a model learns from its own (stages grpo and ppo): functions, models, servers.

Opens the kind ``reward``, brings a few, and owns the options that choose among them. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import ftk
from ftk_training.preference_options import RewardModelOptions

__all__ = ["JUDGES", "Reward", "RewardOptions"]


class Reward(ftk.Spec):
    """Something that judges answers. Chosen by ``reward_funcs``, any number.

    Target: ``judge(...) -> [number, ...]``, one for each answer; None where it has nothing to say. It is called with
    those of these names that its signature has, all by keyword, or with all of them when it takes ``**``:

    replies: the answers' texts, also called ``completions``. prompts: the conversations before them, each a list of
    ``{"role": ..., "content": ...}``. references: the reference answers, "" where the data has none. rows: the rows of
    the data set. finished: whether the model ended its turn. tokens: the numbers of the answers' tokens. run: the run.
    Any other name is a column of the data set, a list with one value (or None) for each answer.
    """

    kind: ClassVar[str] = "reward"


@ftk.options
class RewardOptions:
    """What judges the answers. The weighted sum is the reward."""

    reward_funcs: tuple[str, ...] = ftk.option(
        (), help="Which rewards: names, or file.py:function of your own; ftk options reward_funcs lists the names."
    )
    reward_weights: Any = ftk.option(
        None, help="A weight for each of reward_funcs, then one for the reward model: 1.0,0.2; unset is 1 for all."
    )
    reward_model_type: Literal["lora", "full", "api"] = ftk.option(
        "lora",
        help="What reward_model is: lora is an adapter that takes turns with the one that learns, full a model of its "
        "own, api the address of a server that gets the texts and returns scores.",
    )

    def __post_init__(self) -> None:
        if len(self.weights) > len(self.reward_funcs) + 1:
            most = len(self.reward_funcs) + 1
            raise ValueError(f"reward_weights: {len(self.weights)} weights for at most {most} rewards")

    @property
    def weights(self) -> tuple[float, ...]:
        """``reward_weights`` as numbers, none when unset. Raises ValueError for anything else."""
        given = self.reward_weights
        if given is None or given == "":
            return ()
        parts = given.split(",") if isinstance(given, str) else given if isinstance(given, (list, tuple)) else [given]
        try:
            return tuple(float(part) for part in parts)
        except (TypeError, ValueError):
            raise ValueError(f"reward_weights: expected numbers such as 1.0,0.2, found {given!r}") from None


JUDGES = (RewardOptions, RewardModelOptions)
"""The option classes of a stage that asks :class:`ftk_rewards.judging.Judges`; its ``uses`` names ``reward``."""


@ftk.options
class LengthOptions:
    reward_length: int = ftk.option(100, help="How many tokens the reward `length` likes best.", minimum=1)


@ftk.options
class FormatOptions:
    reward_pattern: str = ftk.option(
        r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*",
        help="The regular expression that a whole answer matches for the reward `format`; a dot matches line breaks.",
    )


@ftk.options
class OverlongOptions:
    reward_overlong_buffer: int = ftk.option(
        128, help="The reward `overlong` falls from 0 to -1 over so many tokens before max_new_tokens.", minimum=1
    )


@ftk.hookimpl
def ftk_kinds() -> Iterator[ftk.Kind]:
    yield ftk.Kind(Reward, "ftk_rewards", selector="reward_funcs", many=True, own_code=True)


@ftk.hookimpl
def ftk_rewards() -> Iterator[Reward]:
    here = "ftk_rewards.simple"
    made: Any = (
        ("accuracy", "", "1 when the final answer is the reference's: a number, what is boxed, or <answer>"),
        ("match", "", "1 when the answer is the reference, but for case and spaces"),
        ("format", FormatOptions, "1 when the whole answer matches reward_pattern"),
        ("length", LengthOptions, "1 at reward_length tokens, falling to 0 at none and at twice as many"),
        ("overlong", OverlongOptions, "0, and down to -1 close to max_new_tokens (DAPO's soft punishment)"),
        ("repetition", "", "0, and down to -1 with the share of three words in a row that came before"),
    )
    for name, options, summary in made:
        yield Reward(name, target=f"{here}:{name}", options=options or (), summary=summary)
