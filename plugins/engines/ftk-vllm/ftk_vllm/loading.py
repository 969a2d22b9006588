"""Starting vLLM: what it loads, and with which arguments."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import ConfigError, ModelError
from ftk.errors import did_you_mean
from ftk_data.asking import Asking
from ftk_peft.serving import Served, served

from ftk_vllm import VllmOptions
from ftk_vllm.engine import VllmEngine
from ftk_vllm.loop import Loop

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.vllm")

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as its largest rank."""


def build(run: Run, model: Any) -> VllmEngine:
    """vLLM in processes of its own. Raises ModelError, ConfigError for what it cannot load."""
    quiet(run)
    loads = served(run, "vllm")
    try:
        return _started(run, loads)
    except BaseException:
        loads.close()
        raise


def _started(run: Run, loads: Served) -> VllmEngine:
    arguments = arguments_of(run, loads)
    log.info("vllm loads %s", loads.model)
    try:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM
    except (ImportError, OSError) as cause:
        raise ModelError(f"vllm cannot be imported: {' '.join(str(cause).split())[:200]}") from cause
    known = list(AsyncEngineArgs.__dataclass_fields__)
    where = run.plan.where("vllm_config")
    if unknown := [key for key in arguments if key not in known]:
        raise ConfigError(f"{where}: vllm has no argument {unknown[0]}.{did_you_mean(unknown[0], known)}")
    loop = Loop("vllm")
    try:
        client = loop.call(lambda: AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments)))
    except Exception as cause:  # its own and pydantic's, and those of its processes
        loop.close()
        said = " ".join(str(cause).split())[:300]
        raise ModelError(f"{run.plan.where('model_name_or_path')}: vllm cannot load it: {said}") from cause
    asking = Asking.of(run, loads.ends, client.model_config.max_model_len)
    showing = None
    if asking.media is not None:
        from ftk_vllm.showing import Showing

        showing = Showing(run, arguments.get("media_io_kwargs"))
    return VllmEngine(client, loop, asking, loads, showing, run.plan.where("infer_backend"))


def quiet(run: Run) -> None:
    """Nothing is told to anybody, and a model in a folder needs no network. Before vLLM is imported."""
    os.environ.update(VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if Path(run.model_path).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    elif token := run.value("hf_hub_token"):
        os.environ.setdefault("HF_TOKEN", token)


def arguments_of(run: Run, loads: Served) -> dict[str, Any]:
    """The fields of vLLM's AsyncEngineArgs. Raises ConfigError for a rank or a ``vllm_config`` that cannot be."""
    options = run.options(VllmOptions)
    made: dict[str, Any] = {
        "model": loads.model,
        "dtype": _dtype(run),
        "trust_remote_code": run.value("trust_remote_code"),
        "max_model_len": min(options.vllm_maxlen, loads.limit or options.vllm_maxlen),
        "gpu_memory_utilization": options.vllm_gpu_util,
        "enforce_eager": options.vllm_enforce_eager,
        "tensor_parallel_size": _parallel(run),
        "generation_config": "vllm",  # how answers are sampled, the YAML or the request says
        "logprobs_mode": "raw_logprobs",  # the model's own, as the other engines tell them
        "disable_log_stats": True,
        "seed": run.seed,
    }
    if not Path(loads.model).is_dir():
        made |= {"revision": run.value("model_revision"), "download_dir": run.value("cache_dir")}
    learns = run.plan.one("trainer") is not None and run.plan.one("adapter") is not None
    if loads.own or loads.named or learns:
        made |= {"enable_lora": True, "max_loras": len(loads.named) + 1, "max_lora_rank": _rank(run, loads)}
    return made | _config(run)


def _rank(run: Run, loads: Served) -> int:
    options = run.options(VllmOptions)
    learns = int(run.value("lora_rank")) if "lora_rank" in run.plan.values else 0
    needed = max(loads.rank, learns)
    most = options.vllm_max_lora_rank
    if needed > most:
        if "vllm_max_lora_rank" in run.plan.given:
            raise ConfigError(f"{run.plan.where('vllm_max_lora_rank')}: an adapter has rank {needed}. Give that")
        most = needed
    if most > RANKS[-1]:
        raise ConfigError(f"{run.plan.where('vllm_max_lora_rank')}: vllm takes adapters up to rank {RANKS[-1]}")
    return next(rank for rank in RANKS if rank >= most)


def _dtype(run: Run) -> str:
    """The type that ``infer_dtype`` asks for; auto is the model's own, and not vLLM's half of it."""
    asked = str(run.value("infer_dtype"))
    if asked != "auto":
        return asked
    own = getattr(run.model_config, "dtype", None)
    return "auto" if own is None else str(own).removeprefix("torch.")


def _parallel(run: Run) -> int:
    """As many accelerators as there are, or fewer when they cannot share the heads of the model evenly."""
    import torch

    count = torch.accelerator.device_count() if torch.accelerator.is_available() else 1
    heads = getattr(run.model_config.get_text_config(), "num_attention_heads", None) if run.model_config else None
    return next((n for n in range(count, 0, -1) if not heads or heads % n == 0), 1)


def _config(run: Run) -> Mapping[str, Any]:
    """``vllm_config``, whichever way it is written."""
    given = run.options(VllmOptions).vllm_config or {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as cause:
            raise ConfigError(f"{run.plan.where('vllm_config')}: is no JSON: {cause}") from cause
        if not isinstance(given, dict):
            raise ConfigError(f"{run.plan.where('vllm_config')}: is no mapping. Write key: value")
    return given
