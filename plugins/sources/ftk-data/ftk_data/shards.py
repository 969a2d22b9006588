"""Tokenised rows on disk: a folder with a file for each stretch of the source's rows.

Every process that needs a data set takes the stretches that nobody has taken yet, so that several ranks or workers
share the work without waiting for one of them, and a run that was killed goes on where it was. A file is written aside
and renamed, so it is whole or not there; one that cannot be read is made again.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ftk import DataError
from safetensors.numpy import save

from ftk_data.store import Piece, media_from_json, media_to_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("ftk.data")

SHARD = 1024
"""Rows of the source in a stretch: a quarter of a second of work, so little is lost in a kill, and processes that share
the work are done at nearly the same time."""
STALE = 600.0
"""Seconds after which a claim of another machine counts as abandoned; those of this machine name their process."""
TYPES = {"I32": np.int32, "BOOL": np.bool_, "I64": np.int64, "F32": np.float32, "I8": np.int8}


class Shards:
    """The folder of one data set. The number of shards is known as soon as somebody has seen the last row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size = SHARD
        self.lost = False
        self._num: int | None = None

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"

    @property
    def num(self) -> int | None:
        """How many shards there are at most, None when nobody knows yet."""
        try:
            found = int(json.loads((self.folder / "end.json").read_text(encoding="utf-8"))["num_shards"])
        except (OSError, ValueError, KeyError, TypeError):
            return self._num
        return found if self._num is None else min(found, self._num)

    def end(self, num: int) -> None:
        """Say how many shards there are at most. Who looks beyond the last row knows no more than that."""
        known = self.num
        self._num = num if known is None else min(num, known)
        if self._num != known:
            self._put(self.folder / "end.json", json.dumps({"num_shards": self._num}).encode())

    def clear(self) -> None:
        """Forget what has been made. Raises DataError when it cannot be removed."""
        for path in [self.folder / "end.json", *self.folder.glob("*.safetensors")]:
            try:
                path.unlink(missing_ok=True)
            except OSError as cause:
                raise DataError(
                    f"overwrite_cache: {path} cannot be removed: {cause.strerror}. Set FTK_CACHE"
                ) from cause

    def has(self, number: int) -> bool:
        return os.path.exists(self.path(number))  # False, too, in a folder that may not be read

    def read(self, number: int) -> tuple[Piece, dict[str, Any]] | None:
        """A shard with what was noted about it; None, and the file is gone, when it cannot be read."""
        return read(self.path(number))

    def write(self, number: int, piece: Piece, facts: Mapping[str, Any]) -> None:
        self._put(self.path(number), packed(piece, facts))

    def _put(self, path: Path, content: bytes) -> None:
        try:
            put(path, content)
        except OSError as error:
            if not self.lost:
                log.warning("%s: tokenised rows are not kept: %s", self.folder, error)
            self.lost = True

    # Who makes which shard.

    def claim(self, number: int) -> bool:
        """Whether this process is to make a shard. An abandoned claim is taken over."""
        claim = self._claim(number)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            create(claim, json.dumps([socket.gethostname(), os.getpid(), _started(os.getpid())]).encode())
        except FileExistsError:
            if not _abandoned(claim):
                return False
            taken = claim.with_suffix(f".{os.getpid()}")
            try:
                claim.rename(taken)  # of several that find it abandoned one succeeds
            except OSError:
                return False
            taken.unlink(missing_ok=True)
            return self.claim(number)
        except OSError:
            return True  # nothing can be kept, so nobody else will make it for us
        return True

    def unclaim(self, number: int) -> None:
        with suppress(OSError):
            self._claim(number).unlink()

    def refresh(self, number: int) -> None:
        """Show other machines that the work on a shard goes on."""
        with suppress(OSError):
            os.utime(self._claim(number))

    def _claim(self, number: int) -> Path:
        return self.folder / f"{number:06d}.claim"


def _abandoned(claim: Path) -> bool:
    try:
        host, process, started = json.loads(claim.read_text(encoding="utf-8"))
        age = time.time() - claim.stat().st_mtime
    except (OSError, ValueError, TypeError):
        try:
            return time.time() - claim.stat().st_mtime > 5  # its writer has had time enough
        except OSError:
            return False
    return age > STALE if host != socket.gethostname() else not _runs(process, started)


def _runs(process: int, started: str) -> bool:
    """Whether a process of this machine is alive: the one that began then, for numbers are given again."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError, TypeError):
        return False
    except PermissionError:
        pass
    return _started(process) == started


def _started(process: int) -> str:
    """When a process began, in the kernel's ticks; empty where the system does not tell, or when it has died."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if facts[0] in "ZX" else facts[19]  # a dead child that nobody has waited for still has its number


def put(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def create(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, so that a reader sees all of it or none, also after a kill in between.

    Where there are no hard links, a kill can leave it empty. Raises FileExistsError when it is there.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        aside.write_bytes(content)
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:
        with path.open("xb") as file:
            file.write(content)
    finally:
        aside.unlink(missing_ok=True)


def packed(piece: Piece, facts: Mapping[str, Any]) -> bytes:
    """A piece as a safetensors file."""
    arrays: dict[str, NDArray[Any]] = {
        "ids_T": piece.ids_T, "trained_T": piece.trained_T, "starts": piece.starts, "examples_N": piece.examples_N,
        "roles_N": piece.roles_N,
    }  # fmt: skip
    if piece.weights_T is not None:
        arrays["weights_T"] = piece.weights_T
    noted = {"facts": json.dumps(facts), "media": media_to_json(piece.media)}
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, noted)


def read(path: Path, *, keep: bool = False) -> tuple[Piece, dict[str, Any]] | None:
    """A piece, its arrays left on disk, with what was noted about it; None when there is none that can be read.

    A damaged file is removed, so that it is made again, unless it is to be kept.

    The library's own reader copies what it reads; a map of the file costs memory only for rows in use.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > os.fstat(file.fileno()).st_size:
                raise ValueError("it has no header")
            header = json.loads(file.read(length))
        noted = header.pop("__metadata__")
        raw = np.memmap(path, np.uint8, "r", 8 + length)
        arrays = {name: _mapped(raw, **about) for name, about in header.items()}
        piece = Piece(**arrays, media=media_from_json(noted["media"]))
        facts: dict[str, Any] = json.loads(noted["facts"])
        assert len(piece.ids_T) == len(piece.trained_T) == piece.starts[-1]
        assert len(piece) == len(piece.examples_N) == len(piece.roles_N)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError) as error:
        log.warning("%s: is damaged: %s: %s", path, type(error).__name__, error)
        if not keep:
            with suppress(OSError):
                path.unlink()
        return None
    return piece, facts


def _mapped(raw: NDArray[np.uint8], *, dtype: str, shape: list[int], data_offsets: list[int]) -> NDArray[Any]:
    first, last = data_offsets
    found = raw[first:last].view(TYPES[dtype])
    if list(found.shape) != shape:
        raise ValueError(f"has {found.shape} values where {shape} are expected")
    return found
