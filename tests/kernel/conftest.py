"""A made-up registry: specs without any installed plugin, so that the kernel is tested alone."""

import ftk
import pluggy
import pytest
from ftk.plugins import PluginRecord
from ftk.registry import Registry

GONE = (ftk.Replaced("warm_ratio", by="warm_steps"), ftk.Replaced("log_folder", note="set LOG_DIR instead"))


@ftk.options(replaced=GONE)
class MadeUpTraining:
    learning_rate: float = ftk.option(5e-5, help="Step size.", minimum=0)
    warm_steps: float = ftk.option(0, help="Steps of warm-up; below 1 a share.")
    packing: bool = ftk.option(False, help="Pack rows.", excludes=("streaming",))
    streaming: bool = ftk.option(False, help="Stream rows.", needs=("learning_rate=0.1",))
    token: str | None = ftk.option(None, help="A secret.", secret=True)
    targets: tuple[str, ...] = ftk.option(("all",), help="Names.")


@ftk.options
class MadeUpRank:
    rank: int = ftk.option(8, help="Rank.", minimum=1)

    def __post_init__(self):
        if self.rank == 13:
            raise ValueError("rank: 13 brings bad luck")


@ftk.options
class OnlyForOther:
    other_size: int = ftk.option(1, help="Matters to the other adapter only.")


@ftk.options
class NoiseSwitch:
    use_noise: bool = ftk.option(False, help="Noise.")
    use_more: bool = ftk.option(False, help="More noise.")


SPECS = (
    ftk.ModelLoader("disk", target="made.up:load", default=True),
    ftk.ModelLoader("cloud", schemes=("cloud",), locate="made.up:locate"),
    ftk.Adapter("small", target="made.up:apply", default=True, options=MadeUpRank),
    ftk.Adapter("other", target="made.up:apply", options=OnlyForOther, needs=("rank",), excludes=("optimizer:noisy",)),
    ftk.Adapter("heavy", target="made.up:apply", requires=("no_such_package_anywhere",), extra="backend"),
    ftk.Quantizer("squeeze", target="made.up:squeeze", default=True, bits=(4, 8), excludes=("targets>1",)),
    ftk.Quantizer("open", target="made.up:squeeze", methods=("zip",), excludes=("adapter:other",)),
    ftk.Optimizer("noisy", target="made.up:build", switch="use_noise", options=NoiseSwitch),
    ftk.Optimizer("noisier", target="made.up:build", switch="use_more", options=NoiseSwitch),
    ftk.DatasetSource("file", target="made.up:open", field="file_name", schemes=("",), entry_fields=("folder",)),
    ftk.DatasetConverter(
        "pairs", target="made.up:convert", default=True, columns=("prompt", "response"), tags=("role",)
    ),
    ftk.ChatTemplate("plain", default=True),
    ftk.ChatTemplate("fancy"),
    ftk.Trainer("learn", target="made.up:train", default=True, options=MadeUpTraining),
    ftk.Trainer("read", target="made.up:train", options=MadeUpTraining, uses=("model_loader", "adapter", "source")),
    ftk.Tracker("diary", target="made.up:track"),
    ftk.Command("talk", target="made.up:talk", uses=("model_loader", "adapter", "template")),
)


@pytest.fixture
def registry():
    record = PluginRecord("made-up", "ftk-made-up", "1.2", __name__.split(".")[0], specs=SPECS)
    return Registry((record,), pluggy.PluginManager("ftk"))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A working directory with a data set and its dataset_info.json."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.json").write_text("[]")
    (tmp_path / "data" / "dataset_info.json").write_text('{"rows": {"file_name": "rows.json"}}')
    monkeypatch.chdir(tmp_path)
    return tmp_path
