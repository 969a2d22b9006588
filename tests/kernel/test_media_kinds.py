"""The media contract (``ftk.types.MediaEncoder``) with images, videos and sounds in one row: nothing is image-only.

A made-up plugin serves them for a tiny text model. Its files say their size in their text (``8x6``), their frames and
seconds; what it should write is written down by hand in each test, and packed or cut rows are held against whole ones.
"""

import json

import numpy as np
import pytest
import torch
from ftk import DataError
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk.types import Media

pytest.importorskip("ftk_data")
pytest.importorskip("ftk_media")
pytest.importorskip("ftk_sharegpt")
Collator = pytest.importorskip("ftk_training.collator").Collator

MARKS = {"image": "!", "video": "#", "audio": "%"}
PLUGIN = '''
"""Sees and hears: an image is a token for each 2 x 2 pixels, a video two for each frame with its time before, a sound
one for each 100 samples. With use_audio_in_video the sound after a video is written into the video's text."""
from collections.abc import Iterator

import ftk
import torch
from ftk_media import MediaOptions
from ftk_media.files import Files, frames


class Senses:
    placeholders = {"image": "<|image|>", "video": "<|video|>", "audio": "<|sound|>"}
    blanks = (ftk.Media("image", b"2x2"), ftk.Media("video", b"1"), ftk.Media("audio", b"0.01"))

    def __init__(self, run):
        self.files, self.options = Files.of(run), run.options(MediaOptions)
        self.ids = {kind: run.tokenizer(mark)["input_ids"][0] for kind, mark in MARKS.items()}

    def text(self, medium):
        with self.files.open(medium) as file:
            return file.read().decode()

    def number(self, medium):
        """Pixels of an image, frames of a video, samples of a sound."""
        if medium.kind == "image":
            width, height = map(int, self.text(medium).split("x"))
            return min(width * height, self.options.image_max_pixels)
        if medium.kind == "audio":
            return int(float(self.text(medium)) * self.options.audio_sampling_rate)
        if given := frames(medium):
            assert all(self.number(frame) for frame in given)
            return min(len(given), self.options.video_maxlen)
        return min(int(float(self.text(medium)) * self.options.video_fps), self.options.video_maxlen)

    def expand(self, media):
        texts = []
        for number, medium in enumerate(media):
            before = media[number - 1].kind if number else ""
            if medium.kind == "image":
                texts.append("!" * (self.number(medium) // 4))
            elif medium.kind == "audio":
                heard = self.options.use_audio_in_video and before == "video"
                texts.append("" if heard else "%" * (self.number(medium) // 100))
            else:
                after = media[number + 1] if number + 1 < len(media) else None
                sound = "%" if self.options.use_audio_in_video and after and after.kind == "audio" else ""
                texts.append("".join(f"<{at} s>##{sound}" for at in range(self.number(medium))))
        return texts

    def encode(self, batch, media):
        of = {kind: [one for row in media for one in row if one.kind == kind] for kind in MARKS}
        made = {}
        if of["image"]:
            made["pixel_values"] = torch.tensor([self.number(one) for one in of["image"]])
        if of["video"]:
            made["video_frames"] = torch.tensor([self.number(one) for one in of["video"]])
        if of["audio"]:
            lengths = torch.tensor([self.number(one) for one in of["audio"]])
            made["input_features"] = torch.zeros(len(lengths), int(lengths.max()))
            made["feature_attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        made["position_ids"] = torch.arange(batch["input_ids"].shape[1]).expand(3, *batch["input_ids"].shape)
        return made if media and any(media) else {}

    def fingerprint(self):
        return repr(self.options)


class Deaf(Senses):
    """Keeps what it makes of a batch, for a model that takes none of it."""

    def encode(self, batch, media):
        super().encode(batch, media)
        seen.append([[one.kind for one in row] for row in media])
        return {}


seen = []
MARKS = {"image": "!", "video": "#", "audio": "%"}


@ftk.hookimpl
def ftk_media_processors() -> Iterator[ftk.MediaProcessor]:
    yield ftk.MediaProcessor("senses", target="ftk_senses:Senses", model_types=("llama",), options=MediaOptions,
                             summary="Sees and hears")
    yield ftk.MediaProcessor("deaf", target="ftk_senses:Deaf", model_types=("qwen2",), options=MediaOptions,
                             summary="Hears nothing of it")


@ftk.hookimpl
def ftk_chat_templates() -> Iterator[ftk.ChatTemplate]:
    yield ftk.ChatTemplate("senses", user="U: {content}\\n", generation="A: ", assistant="{content}{eos}",
                           media={"image": "<|image|>", "video": "<|video|>", "audio": "<|sound|>"}, summary="Senses")
'''
FILES = {"a.png": "4x4", "b.png": "2x4", "v.mp4": "1.5", "w.mp4": "3", "s.wav": "0.02", "t.wav": "0.01"}
ROWS = [
    ("<video><audio>What, beside <image>?", "A thing.",
     {"images": ["a.png"], "videos": ["v.mp4"], "audios": ["s.wav"]}),
    ("<image>, <audio> and <image>", "Both.", {"images": ["a.png", "b.png"], "audios": ["t.wav"]}),
    ("Frames: <video>", "Two.", {"videos": [["a.png", "b.png"]]}),
    ("Nothing.", "Right.", {}),
]  # fmt: skip


@pytest.fixture
def rows_of(tmp_path, monkeypatch, fake_plugin):
    """``rows_of(model, rows, **options)``: a run over some rows, their files beside them."""
    fake_plugin("senses", PLUGIN)
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    columns = {"messages": "messages", "images": "images", "videos": "videos", "audios": "audios"}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    info = {"shown": {"file_name": "rows.json", "formatting": "sharegpt", "columns": columns, "tags": tags}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))

    def rows_of(rows, model="llama", **options):
        made = []
        for text, answer, media in rows:
            talk = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
            made.append({"messages": talk, **media})
        (tmp_path / "rows.json").write_text(json.dumps(made))
        settings = {"cutoff_len": 400, "finetuning_type": "full", "template": "senses", "disable_shuffling": True}
        where = {"dataset": "shown", "dataset_dir": str(tmp_path), "model_name_or_path": f"ftk://random/{model}"}
        return Run(plan_in(tmp_path, **where, **{**settings, **options}))

    return rows_of


def shown(row):
    return [one.kind for one in row.get("media", ())]


def decoded(run, row):
    return run.tokenizer.decode(row["input_ids"])


def test_each_kind_grows_in_its_place_as_its_options_say(rows_of):
    run = rows_of(ROWS, image_max_pixels=12, image_min_pixels=1, video_fps=2, video_maxlen=2, audio_sampling_rate=10000)
    texts = [decoded(run, row) for row in run.rows("train")]
    assert texts == [
        "U: <0 s>##<1 s>##%%What, beside !!!?\nA: A thing.<|im_end|>",
        "U: !!!, % and !!\nA: Both.<|im_end|>",
        "U: Frames: <0 s>##<1 s>##\nA: Two.<|im_end|>",
        "U: Nothing.\nA: Right.<|im_end|>",
    ]
    kinds = [["video", "audio", "image"], ["image", "audio", "image"], ["video"], []]
    assert [shown(row) for row in run.rows("train")] == kinds
    slower = rows_of(ROWS, video_fps=1, audio_sampling_rate=20000, image_max_pixels=8, image_min_pixels=1)
    assert decoded(slower, slower.rows("train")[0]).startswith("U: <0 s>##%%%%What, beside !!?")


def test_no_token_of_any_kind_is_trained(rows_of):
    run = rows_of(ROWS, train_on_prompt=True)
    for row in run.rows("train"):
        media = np.isin(row["input_ids"], list(run.media.ids.values()))
        assert (row["labels"][media] == -100).all()
        assert "A: " in run.tokenizer.decode(row["labels"][row["labels"] != -100])


def test_a_video_may_be_its_frames_also_after_the_cache(rows_of, tmp_path):
    for _ in range(2):
        row = rows_of(ROWS).rows("train")[2]
        assert row["media"] == (Media("video", (str(tmp_path / "a.png"), str(tmp_path / "b.png"))),)


def test_the_sound_of_a_video_may_stand_in_the_videos_text(rows_of):
    run = rows_of(ROWS[:2], use_audio_in_video=True, video_fps=2)
    first, second = run.rows("train")
    assert decoded(run, first).startswith("U: <0 s>##%<1 s>##%<2 s>##%What")
    assert shown(first) == ["video", "audio", "image"]
    assert "%" in decoded(run, second)


@pytest.mark.parametrize("policy", ["truncate", "split", "drop"])
def test_no_medium_of_any_kind_is_cut_at_any_length(rows_of, policy):
    """Every kept row shows exactly the media whose tokens it holds."""
    whole = rows_of(ROWS, audio_sampling_rate=10000)
    lengths = sorted(len(row["input_ids"]) for row in whole.rows("train"))
    seen = set()
    for limit in range(lengths[0] if policy == "drop" else 8, lengths[-1] + 3, 3):
        run = rows_of(ROWS, cutoff_len=limit, cutoff_policy=policy, train_on_prompt=True, audio_sampling_rate=10000)
        for row in run.rows("train"):
            grown = run.media.expand(row.get("media", ()))
            for mark in MARKS.values():
                assert (row["input_ids"] == run.tokenizer(mark)["input_ids"][0]).sum() == "".join(grown).count(mark)
            text = decoded(run, row)
            assert all(one in text for one in grown)
            seen.add(tuple(shown(row)))
    assert ("video", "audio", "image") in seen
    assert len(seen) > 2


def test_packed_rows_hold_the_media_of_all_in_order(rows_of):
    run = rows_of(ROWS, packing=True)
    (row,) = run.rows("train")
    single = rows_of(ROWS)
    media = {decoded(single, one): one.get("media", ()) for one in single.rows("train")}
    texts = [f"U: {text}" for text in decoded(run, row).split("U: ")[1:]]
    assert row["media"] == tuple(one for text in texts for one in media[text])
    assert len(row["media"]) == 7


def test_a_batch_has_the_tensors_of_every_kind_and_what_the_encoder_puts_over_it(rows_of):
    run = rows_of(ROWS, audio_sampling_rate=10000)
    rows = list(run.rows("train"))
    batch = Collator(media=run.media, kept_logits=True)(rows)
    assert batch["pixel_values"].tolist() == [16, 16, 8], "an image of the first row, two of the second"
    assert batch["video_frames"].tolist() == [3, 2]
    assert batch["feature_attention_mask"].sum(dim=1).tolist() == [200, 100]
    assert batch["position_ids"].shape == (3, *batch["input_ids"].shape)
    assert Collator(media=run.media)([rows[3]]).keys() == {"input_ids", "labels", "attention_mask"}


def test_every_process_sees_and_hears_when_one_does(rows_of):
    run = rows_of(ROWS)
    blanks = {}
    for blank in run.media.blanks:
        ids = run.tokenizer("".join(run.media.expand([blank])), add_special_tokens=False)["input_ids"]
        blanks[blank.kind] = {"input_ids": ids, "media": (blank,)}
    collate = Collator(media=run.media, blanks=blanks)
    rows = run.rows("train")
    names = [{*collate([row])} & {"pixel_values", "video_frames", "input_features"} for row in rows]
    assert names == [{"pixel_values", "video_frames", "input_features"}] * 4
    for row in rows:
        plain = Collator(media=run.media)([row])
        held = collate([row])
        length = len(row["input_ids"])
        assert torch.equal(held["input_ids"][:, :length], plain["input_ids"])
        assert (held["labels"][:, length:] == -100).all()


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_run_trains_on_all_kinds(rows_of, ftk_run, packing, streaming):
    planned = rows_of(ROWS * 2, model="qwen2", packing=packing)
    given = {key: setting.value for key, setting in planned.plan.given.items() if setting.where == "the test"}
    more = {"streaming": True, "max_steps": 2} if streaming else {}
    finished = ftk_run(**{**given, **more, "per_device_train_batch_size": 4})
    import ftk_senses

    kinds = sorted(kind for batch in ftk_senses.seen for row in batch for kind in row)
    assert {*kinds} == {"image", "video", "audio"}
    assert finished.record["chosen"]["media"] == ["deaf"]
    assert finished.metrics["train_loss"] > 0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("<video>", "x", {"videos": []}), "has more <video> placeholders than videos"),
        (("<audio>", "x", {"audios": ["s.wav", "t.wav"]}), "has 1 audios more than <audio> placeholders"),
        (("<audio>", "x", {"audios": ["none.wav"]}), "none.wav: there is no such file"),
        (("<video>", "x", {"videos": [["a.png", ""]]}), "images: expected a path or bytes as a medium"),
        (("<video>", "x", {"videos": [["a.png", "none.png"]]}), "none.png: there is no such file"),
    ],
)
def test_what_is_wrong_names_the_row(rows_of, row, said):
    with pytest.raises(DataError) as error:
        rows_of([ROWS[3], row]).rows("train")
    assert "row 2" in str(error.value)
    assert said in str(error.value)
