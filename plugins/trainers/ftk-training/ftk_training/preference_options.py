"""Options that several stages of learning from preferences share. Each stage carries the classes that it reads."""

from __future__ import annotations

from ftk import option, options


@options
class PreferenceOptions:
    """What losses of preference read, in whichever stage they stand."""

    pref_beta: float = option(
        0.1, help="How dearly the policy pays for leaving the reference; larger keeps it nearer.", minimum=0
    )
    pref_ftx: float = option(
        0.0, help="Share of the mean negative log-probability of liked answers that is added to the loss.", minimum=0
    )


@options
class ReferenceOptions:
    """The model that a policy is measured against."""

    ref_model: str | None = option(
        None,
        help="Folder or name of the reference model; unset is the model as it was when training began: without its "
        "adapter where one learns, else a frozen copy.",
    )
    ref_model_adapters: tuple[str, ...] = option(
        (), help="Adapters that are merged into the reference model.", needs=("ref_model",)
    )
    ref_model_quantization_bit: int | None = option(
        None, help="Bits of the quantised reference model; unset is not quantised.", minimum=1, needs=("ref_model",)
    )


@options
class PrecomputeOptions:
    """What the reference says can be computed once."""

    precompute_ref_log_probs: bool = option(
        False,
        help="Compute the log-probabilities of the reference once before training and keep them, so that no reference "
        "model stays in memory and no epoch computes them again.",
    )


@options
class RewardModelOptions:
    """The model that judges answers while a policy learns from its own."""

    reward_model: str | None = option(
        None, help="Folder, name or, with reward_model_type api, address of the reward model."
    )
    reward_model_adapters: tuple[str, ...] = option(
        (), help="Adapters that are merged into the reward model.", needs=("reward_model",)
    )
    reward_model_quantization_bit: int | None = option(
        None, help="Bits of the quantised reward model; unset is not quantised.", minimum=1, needs=("reward_model",)
    )
