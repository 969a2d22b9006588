"""``ftk api``: a model, or what a run has made of it, behind the OpenAI API."""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_data import TemplateOptions


@ftk.options
class ApiOptions:
    """Where the server listens, for whom, and how much it takes on."""

    api_host: str = ftk.option("127.0.0.1", help="Address to listen on; another than this machine's needs api_key.")
    api_port: int = ftk.option(8000, help="Port; 0 takes a free one.", minimum=0, maximum=65535)
    api_key: str | None = ftk.option(
        None, help="Key that every request must bring. The environment variable FTK_API_KEY does the same.", secret=True
    )
    api_model_name: str | None = ftk.option(None, help="Name of the model; unset is that of its folder.")
    api_max_concurrency: int = ftk.option(32, help="Answers in the making at a time.", minimum=1)
    api_max_queue: int = ftk.option(256, help="Answers that wait for their turn; more are refused (429).", minimum=0)
    api_max_tokens: int = ftk.option(4096, help="Most tokens of an answer, whatever a request asks for.", minimum=1)
    api_max_body: int = ftk.option(20_000_000, help="Most bytes of a request; larger ones are refused.", minimum=1000)
    api_timeout: float = ftk.option(30.0, help="Seconds in which the body of a request has to arrive.", above=0)
    api_media_dir: str | None = ftk.option(None, help="Folder of media that requests may name; unset allows none.")
    api_remote_media: bool = ftk.option(False, help="Fetch media of public addresses that requests name.")
    api_cors: tuple[str, ...] = ftk.option(
        (), help="Origins of web pages that may ask, for instance http://localhost:3000."
    )


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command(
        "api",
        target="ftk_api.command:api",
        options=(ApiOptions, TemplateOptions),
        uses=("model_loader", "quantizer", "model_patch", "adapter", "template", "media", "engine"),
        summary="Serve a model over the OpenAI API.",
    )
