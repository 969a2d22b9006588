"""What the gate shows to a model that sees: one small picture, as the run and as the exported processor read it."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ftk import Media, Message, Text

if TYPE_CHECKING:
    from ftk.run import Run

SIDE = 64


def png() -> bytes:
    """A square whose colours change along both sides."""
    rows = b"".join(
        b"\0" + bytes(value for x in range(SIDE) for value in (4 * x % 256, 4 * y % 256, (x * y) % 256))
        for y in range(SIDE)
    )

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pictured() -> tuple[Message, ...]:
    """A question about the picture."""
    source = "data:image/png;base64," + base64.b64encode(png()).decode()
    return (Message("user", (Media("image", source), Text("What is this?"))),)


def shown_with(run: Run, media: Sequence[Media]) -> Callable[[Sequence[int]], Mapping[str, Any]]:
    """``of(ids) -> arguments of forward`` beside the tokens, for a text that shows ``media``."""
    encoder = run.media
    if not media or encoder is None:
        return lambda ids: {}
    return lambda ids: encoder.encode(
        {"input_ids": torch.tensor([list(ids)]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}, [media]
    )


def processed(folder: Path, text: str) -> list[int] | None:
    """The tokens that the processor in ``folder`` makes of a text and the picture.

    None where transformers cannot load it here: processors of videos need torchvision.
    """
    from PIL import Image
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except ImportError:
        return None
    image = Image.open(io.BytesIO(png()))
    made = processor(text=[text], images=[image], add_special_tokens=False)
    return list(map(int, made["input_ids"][0]))
