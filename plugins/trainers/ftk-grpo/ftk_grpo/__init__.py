"""Stage grpo: the model answers each prompt several times, and learns from what judges say of the answers.

Group relative policy optimisation (DeepSeekMath, arXiv:2402.03300) with the variants of Dr. GRPO, DAPO, CISPO, GSPO,
SAPO and LUSPO. Keys and defaults are TRL's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import ftk
from ftk_data import DataOptions, TemplateOptions
from ftk_rewards import JUDGES
from ftk_training import TrainingOptions
from ftk_training.preference_options import ReferenceOptions
from ftk_training.rollout_options import RolloutOptions


@ftk.options
class GrpoOptions:
    """How groups of answers become a loss."""

    num_generations: int = ftk.option(8, help="Answers to each prompt, which are compared with each other.", minimum=2)
    num_generations_eval: int | None = ftk.option(
        None, help="Answers to each prompt in an evaluation; unset is num_generations.", minimum=1
    )
    steps_per_generation: int | None = ftk.option(
        None,
        help="Forward passes whose answers are made at once; unset is gradient_accumulation_steps, a multiple of which "
        "it must be.",
        minimum=1,
    )
    num_iterations: int = ftk.option(1, help="How often each answer is trained (mu in the algorithm).", minimum=1)
    beta: float = ftk.option(0.0, help="Weight of the divergence from the reference; 0 has no reference.", minimum=0)
    epsilon: float = ftk.option(0.2, help="How far below 1 a probability ratio counts.", minimum=0)
    epsilon_high: float | None = ftk.option(
        None, help="How far above 1 it counts; unset is epsilon. For loss_type cispo the largest weight.", minimum=0
    )
    delta: float | None = ftk.option(None, help="Largest ratio where less is wanted, too; unset is none.", above=1)
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo"] = ftk.option(
        "dapo",
        help="What the loss is the mean over: dapo and bnpo over all tokens, grpo over answers of the mean over their "
        "tokens, dr_grpo over answers of their sum divided by max_new_tokens; cispo, sapo, luspo also change it.",
    )
    scale_rewards: Literal["group", "batch", "none"] | bool = ftk.option(
        "group", help="What the distance from the group's mean is divided by: the deviation of the group, of all, none."
    )
    importance_sampling_level: Literal["token", "sequence"] = ftk.option(
        "token", help="Whether ratios are of tokens, or of whole answers (GSPO)."
    )
    mask_truncated_completions: bool = ftk.option(False, help="Do not train answers that were cut at max_new_tokens.")
    use_bias_correction_kl: bool = ftk.option(True, help="Multiply the divergence by the ratio, too.")
    sapo_temperature_pos: float = ftk.option(1.0, help="Temperature of loss_type sapo where more is wanted.", above=0)
    sapo_temperature_neg: float = ftk.option(1.05, help="The same where less is wanted.", above=0)


@ftk.hookimpl
def ftk_trainers() -> Iterable[ftk.Trainer]:
    yield ftk.Trainer(
        "grpo",
        target="ftk_grpo.stage:train",
        rows="ftk_data.rows:build_prompts",
        examples="prompts",
        options=(GrpoOptions, RolloutOptions, *JUDGES, ReferenceOptions, DataOptions, TemplateOptions, TrainingOptions),
        uses=(*ftk.Trainer("").uses, "engine", "reward"),
        summary="Group relative policy optimisation: learn from own answers that rewards judge",
    )
