"""Stage ppo: proximal policy optimisation of a language model against a reward, with a critic.

PPO (arXiv:1707.06347) as Ziegler et al. (arXiv:1909.08593) and Stiennon et al. (arXiv:2009.01325) use it: a value head
on the model is the critic, a divergence from the reference is paid token by token, the score comes with the last.
Keys and defaults are LLaMA-Factory's; what that leaves to its library is here with ``ppo_`` before its name.
"""

from __future__ import annotations

from collections.abc import Iterable

import ftk
from ftk_data import DataOptions, TemplateOptions
from ftk_rewards import JUDGES
from ftk_training import TrainingOptions
from ftk_training.preference_options import ReferenceOptions
from ftk_training.rollout_options import RolloutOptions
from ftk_training.value_head_options import ValueHeadOptions


@ftk.options
class PpoOptions:
    """How scores of answers become a loss."""

    ppo_buffer_size: int = ftk.option(
        1, help="Optimizer steps whose answers are made at once, before any of them is trained.", minimum=1
    )
    ppo_epochs: int = ftk.option(4, help="How often the answers made at once are trained.", minimum=1)
    ppo_score_norm: bool = ftk.option(
        False, help="Scores are taken relative to the mean and deviation of all scores so far."
    )
    ppo_target: float = ftk.option(
        6.0, help="The divergence of an answer from the reference that the controller aims at.", above=0
    )
    ppo_whiten_rewards: bool = ftk.option(
        False, help="Divide the rewards of tokens by their deviation before advantages are computed."
    )
    ppo_init_kl_coef: float = ftk.option(0.2, help="What the divergence costs at first.", minimum=0)
    ppo_adap_kl_ctrl: bool = ftk.option(True, help="Adapt that cost to reach ppo_target; false leaves it.")
    ppo_horizon: int = ftk.option(10000, help="Answers over which the cost adapts.", minimum=1)
    ppo_gamma: float = ftk.option(1.0, help="Discount of later rewards.", minimum=0, maximum=1)
    ppo_lam: float = ftk.option(
        0.95, help="Generalized advantage estimation's trade of bias against variance.", minimum=0, maximum=1
    )
    ppo_cliprange: float = ftk.option(0.2, help="How far from 1 a probability ratio counts.", above=0)
    ppo_cliprange_value: float = ftk.option(0.2, help="How far a value may move from what it was.", above=0)
    ppo_vf_coef: float = ftk.option(0.1, help="Weight of the critic's loss.", minimum=0)
    ppo_missing_eos_penalty: float | None = ftk.option(
        None, help="Taken off the score of an answer that was cut at max_new_tokens.", minimum=0
    )


@ftk.hookimpl
def ftk_trainers() -> Iterable[ftk.Trainer]:
    yield ftk.Trainer(
        "ppo",
        target="ftk_ppo.stage:train",
        rows="ftk_data.rows:build_prompts",
        examples="prompts",
        options=(
            PpoOptions, RolloutOptions, *JUDGES, ReferenceOptions, ValueHeadOptions, DataOptions, TemplateOptions,
            TrainingOptions,
        ),
        uses=(*ftk.Trainer("").uses, "engine", "reward"),
        summary="Proximal policy optimisation: learn from own answers against a reward, with a critic",
    )  # fmt: skip
