"""Training keys of older releases of transformers and LLaMA-Factory, and what stands for each now."""

from __future__ import annotations

from ftk import Replaced

GONE = "transformers has dropped it; leave it out"

RENAMED = (
    Replaced("evaluation_strategy", by="eval_strategy"),
    Replaced("warmup_ratio", by="warmup_steps", note="A value below 1 is a share of all steps"),
    Replaced("no_cuda", by="use_cpu"),
    Replaced("push_to_hub_token", by="hub_token"),
    Replaced("push_to_hub_model_id", by="hub_model_id"),
    Replaced("torchdynamo", by="torch_compile_backend"),
    Replaced("xpu_backend", by="ddp_backend"),
    Replaced("per_gpu_train_batch_size", by="per_device_train_batch_size"),
    Replaced("per_gpu_eval_batch_size", by="per_device_eval_batch_size"),
    Replaced(
        "group_by_length",
        by="train_sampling_strategy",
        values={True: "group_by_length", False: None},
        note="false is how it works anyway",
    ),
    Replaced("adafactor", by="optim", values={True: "adafactor", False: None}, note="false is how it works anyway"),
)

DROPPED = (
    Replaced("save_safetensors", note="weights are always saved as safetensors"),
    Replaced("include_tokens_per_second", note="tokens per second are always in trainer_log.jsonl"),
    Replaced("include_effective_tokens_per_second", note="tokens per second are always in trainer_log.jsonl"),
    Replaced("fp16_backend", note="mixed precision is torch's own"),
    Replaced("half_precision_backend", note="mixed precision is torch's own"),
    Replaced("fp16_opt_level", note="mixed precision is torch's own"),
    Replaced("fsdp_min_num_params", note="write min_num_params in fsdp_config"),
    Replaced("fsdp_transformer_layer_cls_to_wrap", note="write transformer_layer_cls_to_wrap in fsdp_config"),
    Replaced("ignore_pad_token_for_loss", note="padding is never trained"),
    Replaced("split_batches", note="write split_batches in accelerator_config"),
    Replaced("dispatch_batches", note="write dispatch_batches in accelerator_config"),
    *(
        Replaced(key, note=GONE)
        for key in (
            "include_inputs_for_metrics", "jit_mode_eval", "mp_parameters", "past_index", "push_to_hub_organization",
            "ray_scope", "tpu_metrics_debug", "tpu_num_cores", "use_ipex", "use_legacy_prediction_loop",
            "use_mps_device",
        )
    ),
)  # fmt: skip

REPLACED = (*RENAMED, *DROPPED)
