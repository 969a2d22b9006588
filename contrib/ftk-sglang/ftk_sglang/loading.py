"""Which server answers: one that runs, or one of our own."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import ConfigError
from ftk_data.asking import Asking
from ftk_peft.serving import Served, served

from ftk_sglang import SglangOptions
from ftk_sglang.engine import SglangEngine
from ftk_sglang.server import Client, Server

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.sglang")

OWN = "ftk-own"
"""What a server of our own calls the run's adapter."""


def build(run: Run, model: Any) -> SglangEngine:
    """The engine. Raises ModelError, ConfigError for a server that cannot be started or is not there."""
    options = run.options(SglangOptions)
    loads = served(run, "sglang", rslora=False)
    try:
        if loads.named and OWN in loads.named:
            raise ConfigError(f"{run.plan.where('lora_modules')}: {OWN}: is taken. Choose another name")
        server = None if options.sglang_url else _started(run, loads)
        try:
            return _engine(run, loads, server)
        except BaseException:
            if server is not None:
                server.close()
            raise
    except BaseException:
        loads.close()
        raise


def _engine(run: Run, loads: Served, server: Server | None) -> SglangEngine:
    options, where = run.options(SglangOptions), run.plan.where("sglang_url")
    if server is None:
        if loads.made is not None:
            raise ConfigError(f"{where}: this model has to be merged first: ftk export, and let the server load that")
        client = Client(str(options.sglang_url), where)
        if not client.ready():
            raise ConfigError(f"{where}: no SGLang server is ready there. Take it out, and one is started")
    else:
        client = server.client
    told = client.info()
    limit = min(n for n in (told.get("context_length"), loads.limit, options.sglang_maxlen) if n)
    asking = Asking.of(run, loads.ends, limit)
    showing = None
    if asking.media is not None:
        from ftk_sglang.showing import Showing

        showing = Showing(run)
    adapters: Mapping[str | None, str] = {name: name for name in loads.named}
    if loads.own:
        adapters = {None: OWN, **adapters}
    return SglangEngine(client, server, asking, loads, adapters, showing)


def _started(run: Run, loads: Served) -> Server:
    arguments = arguments_of(run, loads)
    log.info("an SGLang server starts with %s", loads.model)
    command = tuple(str(arguments.pop("command", "")).split())
    return Server(arguments, run.plan.where("infer_backend"), command=command)


def arguments_of(run: Run, loads: Served) -> dict[str, Any]:
    """The arguments of ``sglang.launch_server``. Raises ConfigError for an ``sglang_config`` that is none."""
    options = run.options(SglangOptions)
    dtype = str(run.value("infer_dtype"))
    if dtype == "auto" and (own := getattr(run.model_config, "dtype", None)) is not None:
        dtype = str(own).removeprefix("torch.")
    made: dict[str, Any] = {
        "model_path": loads.model,
        "dtype": dtype,
        "context_length": min(options.sglang_maxlen, loads.limit or options.sglang_maxlen),
        "mem_fraction_static": options.sglang_mem_fraction,
        "tp_size": _parallel(options.sglang_tp_size),
        "trust_remote_code": bool(run.value("trust_remote_code")),
        "random_seed": run.seed,
        "log_level": "error",
        "sampling_defaults": "openai",  # how answers are sampled, the YAML or the request says
    }
    if not Path(loads.model).is_dir():
        made |= {"revision": run.value("model_revision"), "download_dir": run.value("cache_dir")}
    paths = [f"{name}={folder}" for name, folder in loads.named.items()]
    paths += [f"{OWN}={loads.own}"] if loads.own else []
    if paths:
        made |= {
            "lora_paths": paths, "lora_backend": options.sglang_lora_backend, "max_loras_per_batch": len(paths) + 1,
            "disable_radix_cache": True,
        }  # fmt: skip
    return made | _config(run)


def _parallel(asked: int) -> int:
    if asked > 0:
        return asked
    import torch

    return max(torch.accelerator.device_count(), 1) if torch.accelerator.is_available() else 1


def _config(run: Run) -> Mapping[str, Any]:
    given = run.options(SglangOptions).sglang_config or {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as cause:
            raise ConfigError(f"{run.plan.where('sglang_config')}: is no JSON: {cause}") from cause
        if not isinstance(given, dict):
            raise ConfigError(f"{run.plan.where('sglang_config')}: is no mapping. Write key: value")
    return given
