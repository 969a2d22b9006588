"""TensorBoard: metrics, options and how the run ended, in event files of a folder of the run's own.

The files are flushed after each line. ``tensorboard --logdir saves`` shows all runs beneath a folder.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.tracking import Background, Told


class Events:
    """Event files in ``folder``; a resumed run adds another file to those that are there."""

    def __init__(self, told: Told, folder: Path) -> None:
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.writer = EventFileWriter(str(folder))
        if not told.resumed:
            begun = SessionStartInfo(start_time_secs=time.time())
            for name, value in told.options.items():
                _fill(begun.hparams[name], value)
            self._add(_session("session_start_info", HParamsPluginData(session_start_info=begun)))
            self._add(_text("options", _table(told.options)))
            self._add(_text("made with", _table(told.everything, only="ftk/")))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(Summary(value=values), step)

    def close(self, status: str, error: str) -> None:
        from tensorboard.plugins.hparams.api_pb2 import Status
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

        self._add(_text("status", f"{status}: {error}" if error else status))
        how = Status.Value("STATUS_SUCCESS" if status == "finished" else "STATUS_FAILURE")
        ended = SessionEndInfo(status=how, end_time_secs=time.time())
        self._add(_session("session_end_info", HParamsPluginData(session_end_info=ended)))
        self.writer.close()

    def _add(self, summary: Any, step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self.writer.flush()


def _fill(into: Any, value: Any) -> None:
    """Put an option into a protobuf ``Value``."""
    if isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int | float):
        into.number_value = value
    else:
        into.string_value = str(value)


def _session(name: str, data: Any) -> Any:
    """A summary for the tab of hyperparameters. TensorBoard's own function for it needs TensorFlow."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    data = SummaryMetadata.PluginData(plugin_name="hparams", content=data.SerializeToString())
    return Summary(value=[Summary.Value(tag=f"_hparams_/{name}", metadata=SummaryMetadata(plugin_data=data))])


def _table(values: Mapping[str, Any], only: str = "") -> str:
    """Markdown."""
    rows = "\n".join(f"|{name.removeprefix(only)}|{value}|" for name, value in values.items() if name.startswith(only))
    return f"|name|value|\n|-|-|\n{rows}"


def _text(tag: str, text: str) -> Any:
    """A summary for the text tab."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

    content = TextPluginData(version=0).SerializeToString()
    data = SummaryMetadata.PluginData(plugin_name="text", content=content)
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
    value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=data), tensor=tensor)
    return Summary(value=[value])


def start(run: Run) -> Background:
    from ftk_training.tracking import track

    def connect(told: Told) -> Events:
        beneath = Path(run.value("logging_dir") or told.folder / "runs").resolve()
        return Events(told, beneath / f"{told.name}-{told.id}")

    return track(run, "tensorboard", connect)


@ftk.hookimpl
def ftk_trackers() -> Iterator[ftk.Tracker]:
    yield ftk.Tracker(
        "tensorboard",
        target="ftk_tensorboard:start",
        requires=("tensorboard",),
        extra="backend",
        reads=("logging_dir", "run_name"),
        summary="Metrics as TensorBoard's event files, in the run directory",
    )
