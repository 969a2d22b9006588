"""``ftk api``: what stands on the command line, and the server's life."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
import uvicorn
from ftk import ConfigError
from ftk.kernel_options import SamplingOptions
from ftk.opening import open_run
from ftk_data import renderer

from ftk_api import ApiOptions
from ftk_api.connections import limited
from ftk_api.desk import Desk
from ftk_api.guard import MOST_HEAD, Guard
from ftk_api.media import MediaDoor
from ftk_api.server import make_app
from ftk_api.service import Service

if TYPE_CHECKING:
    from ftk.run import Run

SPARE = 256
"""Requests beside those that are answered or wait: their bodies are coming, or they ask for facts."""


@click.command(
    context_settings={
        "ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"],
    }
)  # fmt: skip
@click.argument("source", required=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--base", is_flag=True, help="Serve the model from before the training.")
def api(source: str | None, words: tuple[str, ...], base: bool) -> None:
    """Serve a model, or what a run has made of it, over the OpenAI API.

    SOURCE is the YAML of a run, its run directory, or a model's folder or ftk:// address. The server listens on
    127.0.0.1:8000; --api_host, --api_port, --api_key and all other keys go after SOURCE. ftk options api_host explains.
    """
    if source and source.startswith("--"):
        source, words = None, (source, *words)
    if source and _is_model(source):
        source, words = None, ("--model_name_or_path", source, *words)
    run = open_run("api", source, words, base=base)
    serve(run)


def _is_model(source: str) -> bool:
    folder = Path(source)
    return "://" in source or ((folder / "config.json").is_file() and not (folder / "run.json").is_file())


def serve(run: Run) -> None:
    """Answer requests until a signal ends it; then finish what runs."""
    options = run.options(ApiOptions)
    key = options.api_key or os.environ.get("FTK_API_KEY") or None
    check_address(options.api_host, key)
    engine = run.engine()
    try:
        server_of(run, engine, options, key).run()
    finally:
        engine.close()


def server_of(run: Run, engine: Any, options: ApiOptions, key: str | None) -> Server:
    """The server, which ``run()`` starts."""
    application = make_guarded(run, engine, options, key)
    config = uvicorn.Config(
        application.app, host=options.api_host, port=options.api_port, log_level="warning", access_log=False,
        server_header=False, h11_max_incomplete_event_size=MOST_HEAD, timeout_keep_alive=30, backlog=2048,
        http=limited(options.api_timeout), lifespan="off",
    )  # fmt: skip
    return Server(config, application.service.desk)


class Application:
    """The guarded application and what it serves."""

    def __init__(self, app: Any, service: Service) -> None:
        self.app, self.service = app, service


def make_guarded(run: Run, engine: Any, options: ApiOptions, key: str | None) -> Application:
    """All that answers requests, without the socket."""
    desk = Desk(engine, options.api_max_concurrency, options.api_max_queue)
    door = MediaDoor(options.api_media_dir, options.api_remote_media)
    sampling = run.options(SamplingOptions).sampling(run.seed if "seed" in run.plan.given else None)
    name = options.api_model_name or name_of(run)
    service = Service(desk, renderer(run), run.tokenizer, name, sampling, options, door)
    open_at_once = options.api_max_concurrency + options.api_max_queue + SPARE
    app: Any = Guard(
        make_app(service), key, options.api_max_body, options.api_timeout, service.counts, open_at_once,
        options.api_host.lower(),
    )  # fmt: skip
    if options.api_cors:
        from starlette.middleware.cors import CORSMiddleware

        app = CORSMiddleware(app, allow_origins=options.api_cors, allow_methods=["*"], allow_headers=["*"])
    return Application(app, service)


def name_of(run: Run) -> str:
    """What the model is called: the folder of its last adapter, else its own last name."""
    adapters = run.value("adapter_name_or_path")
    path = str(adapters[-1] if adapters else run.value("model_name_or_path"))
    return path.rstrip("/").rpartition("/")[2] or path


def check_address(host: str, key: str | None) -> None:
    """Refuse to listen where others can reach it unless a key is asked for."""
    try:
        near = ipaddress.ip_address(host).is_loopback
    except ValueError:
        near = host == "localhost"
    if not near and not key:
        raise ConfigError(f"api_host: {host} can be reached by others. Set api_key or FTK_API_KEY, or take 127.0.0.1")


class Server(uvicorn.Server):
    """Says where it listens; at the first signal it finishes what runs and refuses the rest."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self.desk = desk
        self.port = config.port
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if self.started:
            self.port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            click.echo(f"http://{host}:{self.port}/v1  (Ctrl-C ends)", err=True)

    async def shutdown(self, sockets: Any = None) -> None:
        await super().shutdown(sockets)
        self.desk.shut()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends as a program that has done its work (exit code 0); a second Ctrl-C does not wait for answers.

        uvicorn's own raises the signal once more at the end, which would end the process before the engine is closed.
        """
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.desk.close)
