"""The options of training: every field of transformers' ``TrainingArguments``, and what ftk and LLaMA-Factory add.

Plain data; a test compares it with the installed transformers. Left out are the fields that the kernel owns
(``output_dir``, ``seed``, ``report_to``, ``resume_from_checkpoint``) and those of ftk-neftune and ftk-liger. Defaults
are transformers', but for those that the README of this plugin lists with the reason.
"""

from __future__ import annotations

from typing import Any, Literal

from ftk import option, options

from ftk_training.replaced import REPLACED

Interval = Literal["no", "steps", "epoch"]
Settings = dict[str, Any] | str | None


@options(replaced=REPLACED)
class TrainingOptions:
    """How a model is trained, evaluated, logged and saved."""

    # How long, how fast
    do_train: bool | None = option(None, help="Train; unset does, unless do_predict is on. False only evaluates.")
    num_train_epochs: float = option(3.0, help="How often the training data is gone through.", above=0)
    max_steps: int = option(-1, help="Stop after this many optimizer steps, whatever the epochs; -1 is no limit.")
    per_device_train_batch_size: int = option(8, help="Rows of one forward pass on each device.", minimum=1)
    gradient_accumulation_steps: int = option(
        1, help="Forward passes of one optimizer step; the loss is the mean over all their tokens.", minimum=1
    )
    learning_rate: float = option(5e-5, help="Highest learning rate.", minimum=0)
    lr_scheduler_type: str = option("linear", help="linear, cosine, constant_with_warmup, warmup_stable_decay ...")
    lr_scheduler_kwargs: Settings = option(None, help="More arguments of the schedule, for instance {min_lr: 1e-6}.")
    warmup_steps: float = option(0, help="Steps until the highest rate; below 1 a share of all steps.", minimum=0)
    optim: str = option("adamw_torch_fused", help="Optimizer, by transformers' names: adamw_torch, adafactor ...")
    optim_args: str | None = option(None, help="Arguments of the optimizer: name=value,name=value.")
    optim_target_modules: str | list[str] | None = option(None, help="Modules that galore and apollo optimizers take.")
    weight_decay: float = option(0.0, help="Decoupled weight decay of all weights but biases and norms.")
    adam_beta1: float = option(0.9, help="Decay of Adam's first moment.", minimum=0, maximum=1)
    adam_beta2: float = option(0.999, help="Decay of Adam's second moment.", minimum=0, maximum=1)
    adam_epsilon: float = option(1e-8, help="Adam's term against division by zero.", minimum=0)
    max_grad_norm: float = option(1.0, help="Gradients are scaled down to this norm; 0 leaves them.", minimum=0)
    label_smoothing_factor: float = option(
        0.0, help="Share of the target spread over all tokens.", minimum=0, maximum=1
    )
    average_tokens_across_devices: bool = option(True, help="The loss is the mean over the tokens of all devices.")
    on_bad_loss: Literal["stop", "skip"] = option(
        "stop",
        help="What to do with a batch whose loss or gradients are no number, or whose loss explodes: stop, or leave it "
        "out of its step; either way it is written into the run directory. On an accelerator skip waits for each loss.",
    )
    exploding_loss: float = option(
        10.0,
        help="A loss explodes when it lies above the median of the last 64 batches by this many times the largest of "
        "their spread, that median, and 1; 0 lets it.",
        minimum=0,
    )
    early_stopping_steps: int | None = option(
        None, help="Stop after this many evaluations without a better metric_for_best_model.", minimum=1
    )

    # Order of the rows
    train_sampling_strategy: Literal["random", "sequential", "group_by_length", "batch_rebalance"] = option(
        "random", help="Order of the rows; group_by_length puts rows of like length together."
    )
    disable_shuffling: bool = option(False, help="Take the rows in their order: train_sampling_strategy sequential.")
    length_column_name: str = option("length", help="Column of row lengths, for data sets that bring one.")
    data_seed: int | None = option(None, help="Seed of the order of rows; unset is seed.")
    dataloader_drop_last: bool = option(False, help="Leave out the last batch when it is not full.")
    dataloader_num_workers: int = option(0, help="Processes that prepare batches; 0 is the main process.", minimum=0)
    dataloader_pin_memory: bool = option(True, help="Pinned memory, for a quicker copy to the device.")
    dataloader_persistent_workers: bool = option(False, help="Keep the worker processes between epochs.")
    dataloader_prefetch_factor: int | None = option(None, help="Batches that each worker prepares ahead.")
    dataloader_multiprocessing_context: str | None = option(None, help="How workers start: fork, spawn, forkserver.")
    dataloader_in_order: bool = option(True, help="Workers hand out batches in order; false is not repeatable.")
    remove_unused_columns: bool = option(True, help="No effect: the collator takes what the model reads and no more.")
    label_names: list[str] | None = option(None, help="Names of the labels among the model's inputs.")
    ignore_data_skip: bool = option(False, help="When resuming, start the epoch's data anew instead of skipping.")

    # Precision, memory, speed
    padding_free: bool = option(
        False,
        help="Put the rows of a batch one after the other instead of padding them, isolated from each other; with "
        "flash attention it saves all the work on padding, with others it costs a larger mask.",
    )
    bf16: bool = option(False, help="Compute in bfloat16, weights that learn in float32.", excludes=("fp16",))
    fp16: bool = option(False, help="Compute in float16 with loss scaling.", excludes=("pure_bf16",))
    pure_bf16: bool = option(
        False, help="Weights, gradients and optimizer in bfloat16: half the memory, coarser steps."
    )
    bf16_full_eval: bool = option(False, help="Evaluate with the whole model in bfloat16.")
    fp16_full_eval: bool = option(False, help="Evaluate with the whole model in float16.")
    tf32: bool | None = option(None, help="TF32 matrix products on Ampere and newer; unset is torch's choice.")
    gradient_checkpointing: bool | None = option(
        None,
        help="Recompute activations to save memory; unset is on with an accelerator and off on the CPU.",
        excludes=("disable_gradient_checkpointing",),
    )
    gradient_checkpointing_kwargs: Settings = option(None, help="Arguments of torch.utils.checkpoint.checkpoint.")
    activation_checkpointing: bool | None = option(None, help="The newer name of gradient_checkpointing.")
    activation_checkpointing_kwargs: Settings = option(None, help="The newer name of gradient_checkpointing_kwargs.")
    disable_gradient_checkpointing: bool = option(False, help="Never recompute activations: faster, more memory.")
    use_reentrant_gc: bool = option(True, help="Reentrant checkpointing, when activations are recomputed.")
    torch_compile: bool = option(False, help="Compile the model with torch.compile.")
    torch_compile_backend: str | None = option(None, help="Back end of torch.compile; setting it turns it on.")
    torch_compile_mode: str | None = option(None, help="Mode of torch.compile; setting it turns it on.")
    torch_empty_cache_steps: int | None = option(None, help="Empty the device's cache every so many steps.", minimum=1)
    auto_find_batch_size: bool = option(False, help="Halve the batch size when memory runs out, and start again.")
    use_cache: bool = option(False, help="Let the model keep keys and values while it trains.")
    use_cpu: bool = option(False, help="Train on the CPU even if there is a GPU.")
    skip_memory_metrics: bool = option(True, help="False reports the memory of each phase, and slows it down.")
    full_determinism: bool = option(False, help="Deterministic kernels everywhere: slow, for debugging.")
    debug: str | list[str] = option("", help="underflow_overflow watches for non-finite activations.")

    # Evaluation
    do_eval: bool = option(False, help="Evaluate at the end, on eval_dataset or val_size.")
    eval_strategy: Interval = option("no", help="When to evaluate while training; steps is every eval_steps.")
    eval_steps: float | None = option(None, help="Steps between evaluations; below 1 a share; unset is logging_steps.")
    eval_delay: float = option(0, help="Steps or epochs before the first evaluation.", minimum=0)
    eval_on_start: bool = option(False, help="Evaluate before the first step.")
    per_device_eval_batch_size: int = option(8, help="Rows of one forward pass in evaluation.", minimum=1)
    compute_accuracy: bool = option(False, help="Also report the share of trained tokens predicted right.")
    prediction_loss_only: bool = option(False, help="No effect: evaluation here never gathers predictions.")
    eval_accumulation_steps: int | None = option(None, help="No effect: evaluation never gathers predictions.")
    eval_do_concat_batches: bool = option(True, help="No effect: evaluation never gathers predictions.")
    eval_use_gather_object: bool = option(False, help="No effect: evaluation never gathers predictions.")
    batch_eval_metrics: bool = option(False, help="No effect: metrics are always summed batch by batch.")
    include_for_metrics: list[str] | None = option(None, help="No effect: evaluation never gathers predictions.")
    do_predict: bool = option(
        False, help="Answer the prompts of eval_dataset or val_size into generated_predictions.jsonl, after training."
    )

    # Log
    logging_strategy: Interval = option("steps", help="When to log; steps is every logging_steps.")
    logging_steps: float = option(0.01, help="Steps between log lines; below 1 a share of all steps.", above=0)
    logging_first_step: bool = option(False, help="Log the first step, too.")
    logging_nan_inf_filter: bool = option(
        False, help="True hides losses that are no number and goes on; false stops the run at the step."
    )
    include_num_input_tokens_seen: bool | str = option("no", help="Log the tokens seen so far: all, non_padding, no.")
    plot_loss: bool = option(True, help="Draw training_loss.png at the end.")
    disable_tqdm: bool | None = option(None, help="True prints plain lines instead of a progress bar.")
    log_level: str = option("passive", help="What transformers may say: debug, info, warning, error; passive is quiet.")
    log_level_replica: str = option("warning", help="The same for all processes but the first.")
    log_on_each_node: bool = option(True, help="With several machines, log on each.")
    run_name: str | None = option(None, help="Name of the run for trackers.")
    logging_dir: str | None = option(None, help="Folder of TensorBoard's files; unset is runs in the run directory.")
    project: str = option("huggingface", help="Project of the run, for trackers that have one.")
    trackio_space_id: str | None = option(None, help="Hugging Face space of the trackio dashboard.")
    trackio_bucket_id: str | None = option(None, help="Hugging Face bucket of trackio's data.")
    trackio_static_space_id: str | Literal[False] | None = option(None, help="Space of a static trackio dashboard.")

    # Checkpoints
    save_strategy: Literal["no", "steps", "epoch", "best"] = option("steps", help="When to save a checkpoint.")
    save_steps: float = option(500, help="Steps between checkpoints; below 1 a share of all steps.", above=0)
    save_total_limit: int | None = option(None, help="Keep this many checkpoints, and the best one.", minimum=1)
    save_only_model: bool = option(False, help="Checkpoints without what resuming needs: smaller, no way to go on.")
    save_on_each_node: bool = option(False, help="With several machines, save on each instead of the first.")
    load_best_model_at_end: bool = option(False, help="The result is the best checkpoint instead of the last.")
    metric_for_best_model: str | None = option(None, help="What best means; unset is the evaluation loss.")
    greater_is_better: bool | None = option(None, help="Whether more is better; unset is no for names ending in loss.")
    restore_callback_states_from_checkpoint: bool = option(False, help="Resume callbacks from the checkpoint, too.")
    enable_jit_checkpoint: bool = option(False, help="No effect: SIGTERM and SIGINT always save a checkpoint.")

    # Hugging Face Hub
    push_to_hub: bool = option(False, help="Upload the result to the Hugging Face Hub.")
    hub_model_id: str | None = option(None, help="Repository to upload to; unset is named after output_dir.")
    hub_token: str | None = option(
        None, help="Token for the upload; unset is the one you are logged in with.", secret=True
    )
    hub_private_repo: bool | None = option(None, help="Make the repository private.")
    hub_strategy: str = option("every_save", help="What to upload when: end, every_save, checkpoint, all_checkpoints.")
    hub_always_push: bool = option(False, help="Upload even when the last upload is not finished.")
    hub_revision: str | None = option(None, help="Branch to upload to.")

    # Several devices
    ddp_find_unused_parameters: bool | None = option(None, help="DistributedDataParallel's find_unused_parameters.")
    ddp_bucket_cap_mb: int | None = option(None, help="DistributedDataParallel's bucket size in megabytes.")
    ddp_broadcast_buffers: bool | None = option(None, help="DistributedDataParallel's broadcast_buffers.")
    ddp_static_graph: bool | None = option(None, help="DistributedDataParallel's static_graph.")
    ddp_backend: str | None = option(None, help="nccl, gloo, mpi, ...; unset follows the device.")
    ddp_timeout: int = option(1800, help="Seconds that a process waits for the others.", minimum=1)
    fsdp: bool | str | list[str] | None = option(None, help="Fully sharded data parallel: full_shard auto_wrap ...")
    fsdp_config: Settings = option(None, help="FSDP settings, as a mapping or a JSON file.")
    deepspeed: Settings = option(None, help="DeepSpeed settings, as a mapping or a JSON file.")
    accelerator_config: Settings = option(None, help="Settings of accelerate, as a mapping or a JSON file.")
    parallelism_config: dict[str, Any] | None = option(None, help="accelerate's ParallelismConfig as a mapping.")
    local_rank: int = option(-1, help="Set by the launcher, not by you.")

    def __post_init__(self) -> None:
        if self.do_train is None:
            object.__setattr__(self, "do_train", not self.do_predict)
