"""LLaVA: tokens and pixels against transformers' own processors, losses against transformers' model on their output.

The tiny models are ``ftk://random/llava`` and ``llava_next``; counting is also held against the published shapes (tiles
of 336 pixels, patches of 14).
"""

import itertools
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ftk import DataError, Message, ModelError, Prompt, Sampling, Text
from ftk.opening import open_run
from ftk.registry import Registry
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk.types import Media, Tokens
from ftk_media.images import Images
from ftk_media_llava.counting import llava_next_tokens, llava_tokens, seen_size
from ftk_media_llava.images import llava, llava_next
from ftk_training.collator import Collator
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessorPil,
    LlavaImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    SiglipImageProcessorPil,
)

FAMILIES = {"llava": llava_tokens, "llava_next": llava_next_tokens}
DEMO = Path(__file__).parents[4] / "shared" / "data" / "llamafactory"
SIZES = [(40, 30), (64, 64), (30, 90), (200, 100), (33, 32), (500, 20), (17, 300), (1, 1), (336, 336), (1000, 30)]


def draw(path, width, height, seed=0):
    """A picture of coloured rectangles."""
    chosen = random.Random(seed)
    image = Image.new("RGB", (width, height))
    for _ in range(5):
        x, y = chosen.randrange(width), chosen.randrange(height)
        image.paste(tuple(chosen.randrange(256) for _ in range(3)), (x, y, width, height))
    image.save(path)
    return Media("image", str(path))


def tiny(family="llava", **words):
    return open_run("chat", None, ["--model_name_or_path", f"ftk://random/{family}", *words])


def plan(tmp_path, family="llava", **values):
    values = {"finetuning_type": "full", "cutoff_len": 512, "disable_shuffling": True, **values}
    return plan_in(tmp_path, model_name_or_path=f"ftk://random/{family}", **values)


@pytest.fixture
def encoder_of(tmp_path):
    """``encoder_of(family, **options)``: the run's media encoder."""
    return lambda family="llava", **values: Run(plan(tmp_path, family, **values)).media


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def tiny_processor(request):
    return request.param, tiny(request.param).processor


@pytest.fixture(scope="module")
def tokenizer():
    return tiny().tokenizer


def published(family, tokenizer, strategy="default"):
    """The processor with the shapes of llava-1.5-7b-hf and llava-v1.6-vicuna-7b-hf."""
    square = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    more = {"patch_size": 14, "vision_feature_select_strategy": strategy, "num_additional_image_tokens": 1}
    if family == "llava":
        return LlavaProcessor(CLIPImageProcessorPil(**square), tokenizer, **more)
    grids = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    return LlavaNextProcessor(LlavaNextImageProcessorPil(**square, image_grid_pinpoints=grids), tokenizer, **more)


def inserted(processor, image):
    """How many image tokens the real processor writes for an image."""
    ids = processor(images=image, text=processor.image_token)["input_ids"][0]
    return int((np.array(ids) == processor.image_token_id).sum())


def test_the_plugin_keeps_the_contract():
    assert check_plugin("media-llava")


# Counting


@pytest.mark.parametrize("size", SIZES)
def test_an_image_has_as_many_tokens_as_the_tiny_models_processor_writes(tiny_processor, size):
    family, processor = tiny_processor
    assert FAMILIES[family](processor, size) == inserted(processor, Image.new("RGB", size))


@pytest.mark.parametrize("strategy", ["default", "full"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_an_image_has_as_many_tokens_as_the_published_processor_writes(tokenizer, family, strategy):
    processor = published(family, tokenizer, strategy)
    for size in [(640, 480), (480, 640), (336, 336), (1920, 1080), (100, 1000), (673, 671), (50, 50), (1007, 337)]:
        assert FAMILIES[family](processor, size) == inserted(processor, Image.new("RGB", size)), size


def test_llava_15_has_576_tokens_and_llava_next_up_to_2928(tokenizer):
    """Numbers of the papers: 24 x 24 patches; five such tiles and an end for each of 48 lines."""
    assert llava_tokens(published("llava", tokenizer), (123, 456)) == 24 * 24
    assert llava_next_tokens(published("llava_next", tokenizer), (672, 672)) == 5 * 24 * 24 + 48


@pytest.fixture(scope="module")
def processors(tokenizer):
    return [
        (count, one)
        for family, count in FAMILIES.items()
        for one in (published(family, tokenizer), tiny(family).processor)
    ]


@settings(max_examples=500, deadline=None)
@given(size=some.tuples(some.integers(1, 4000), some.integers(1, 4000)))
def test_any_size_counts_as_transformers_counts_it(processors, size):
    """Its own count without pixels, which serves vLLM."""
    for count, processor in processors:
        theirs = processor._get_num_multimodal_tokens(image_sizes=[size[::-1]])["num_image_tokens"][0]
        assert count(processor, size) == theirs


@pytest.mark.parametrize(
    "image_processor",
    [
        SiglipImageProcessorPil(size={"height": 48, "width": 64}),
        CLIPImageProcessorPil(size={"shortest_edge": 48}, do_center_crop=False),
        CLIPImageProcessorPil(do_resize=False, do_center_crop=False),
        CLIPImageProcessorPil(do_resize=False, crop_size={"height": 40, "width": 24}),
        LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": 48}, do_center_crop=False),
    ],
    ids=["fixed", "shortest edge", "as it is", "cropped", "padded"],
)
def test_the_tower_sees_what_the_image_processor_makes(image_processor):
    for size in [(40, 30), (64, 64), (30, 90), (200, 100), (33, 32)]:
        made = image_processor(Image.new("RGB", size), return_tensors="pt")["pixel_values"]
        assert seen_size(image_processor, size) == (made.shape[-1], made.shape[-2])


def clip(**values):
    return CLIPImageProcessorPil(**{"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}, **values})


def padded(edge):
    return LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": edge}, do_center_crop=False)


KINDS = [
    # published shapes in small: CLIP with its class token, SigLIP without one, squares from padding
    (clip(), {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1, "patch_size": 8}),
    (clip(), {"vision_feature_select_strategy": "full", "num_additional_image_tokens": 1, "patch_size": 8}),
    (clip(crop_size={"height": 40, "width": 24}), {"vision_feature_select_strategy": "full", "patch_size": 4}),
    (clip(do_center_crop=False, size={"height": 32, "width": 64}), {"patch_size": 16}),
    (clip(do_resize=False), {"vision_feature_select_strategy": "full", "patch_size": 6}),
    (SiglipImageProcessorPil(size={"height": 56, "width": 56}), {"patch_size": 14}),
    (padded(48), {"num_additional_image_tokens": 1, "patch_size": 8}),
    (padded(60), {"vision_feature_select_strategy": "full", "patch_size": 12}),
]
KINDS_NEXT = [{"image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]}, {"image_grid_pinpoints": [[96, 32], [32, 96]]}]


def kinds_of_processors(tokenizer):
    """LLaVA's processor in many configurations, as published models and their relatives have them."""
    for image_processor, more in KINDS:
        yield llava, LlavaProcessor(image_processor, tokenizer, **{"vision_feature_select_strategy": "full", **more})
    square = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    for grids in KINDS_NEXT:
        for strategy in ("default", "full"):
            image_processor = LlavaNextImageProcessorPil(**square, **grids)
            more = {"patch_size": 8, "vision_feature_select_strategy": strategy, "num_additional_image_tokens": 1}
            yield llava_next, LlavaNextProcessor(image_processor, tokenizer, **more)


@pytest.mark.parametrize("number", range(len(KINDS) + 2 * len(KINDS_NEXT)))
def test_tokens_and_tensors_are_those_of_the_real_processor_in_every_configuration(tokenizer, tmp_path, number):
    """From files to a batch, for images of many sizes: ids, pixel_values and image_sizes, to the bit."""
    make, processor = list(kinds_of_processors(tokenizer))[number]
    run = Run(plan(tmp_path, image_min_pixels=1, image_max_pixels=10**9))
    run.__dict__["tokens"] = Tokens(tokenizer, processor, "llava")
    encoder = make(run)
    for size in SIZES:
        media = draw(tmp_path / "one.png", *size, seed=number)
        made = ids_of(encoder, "See <image>!", [media])
        theirs = processor(images=Image.open(media.source), text="See <image>!", return_tensors="pt")
        batch = Collator(media=encoder)([made])
        assert batch.keys() - {"labels"} == theirs.keys()
        assert all(torch.equal(batch[name], tensor) for name, tensor in theirs.items()), size


def test_the_processor_is_asked_once_for_each_batch_and_never_to_count(ftk_run, drawn, monkeypatch):
    run = Run(plan(Path(drawn["dataset_dir"]), **drawn))
    asked = []
    kind = type(run.processor.image_processor)
    original = kind.__call__
    monkeypatch.setattr(
        kind, "__call__", lambda self, images, **more: asked.append(len(images)) or original(self, images, **more)
    )
    monkeypatch.setattr(LlavaProcessor, "__call__", lambda *_, **__: pytest.fail("the full processor was called"))
    rows = run.rows("train")
    assert len(rows) == 4
    assert asked == []
    finished = ftk_run(**COMMON, **drawn, model_name_or_path="ftk://random/llava", max_steps=2)
    assert len(losses_of(finished)) == 2
    assert asked == [4, 4], "two steps of one batch with four images"


def test_counting_reads_no_pixels(encoder_of, tmp_path, monkeypatch):
    shown = [draw(tmp_path / f"{number}.png", *size) for number, size in enumerate(SIZES)]
    encoder = encoder_of("llava_next")
    wanted = [inserted(encoder.processor, encoder.images.read(one)) for one in shown]

    def refuse(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert [len(text) // len("<image>") for text in encoder.expand(shown)] == wanted


def test_the_pixel_limits_hold_for_counting_and_for_reading(encoder_of, tmp_path):
    shown = [draw(tmp_path / "0.png", 300, 100), draw(tmp_path / "1.png", 3, 5)]
    plain, limited = (encoder_of("llava_next", **values) for values in ({}, {"image_max_pixels": 1500}))
    sizes = [Images.size(limited.images, one) for one in shown]
    assert all(900 < width * height <= 1500 for width, height in sizes)
    for encoder in (plain, limited):
        counts = [text.count("<image>") for text in encoder.expand(shown)]
        assert counts == [inserted(encoder.processor, encoder.images.read(one)) for one in shown]
    assert plain.fingerprint() != limited.fingerprint()


def test_what_the_number_of_tokens_depends_on_is_in_the_fingerprint(encoder_of):
    one, same, other, next_one = (
        encoder_of(family).fingerprint()
        for family in ("llava", "llava", "llava?vision_config.image_size=48", "llava_next")
    )
    moved = encoder_of("llava", media_dir="elsewhere").fingerprint()
    assert one == same
    assert len({one, other, next_one, moved}) == 4


# Batches


def ids_of(encoder, text, media):
    """A row as the rows side makes it: the text with each placeholder grown, all but the media trained."""
    parts = iter(encoder.expand(media))
    pieces = text.split("<image>")
    grown = pieces[0] + "".join(next(parts) + piece for piece in pieces[1:])
    ids = np.array(encoder.processor.tokenizer(grown, add_special_tokens=False)["input_ids"])
    labels = np.where(ids == encoder.processor.image_token_id, -100, ids)
    return {"input_ids": ids, "labels": labels, "media": tuple(media)}


@pytest.fixture
def rows(encoder_of, tmp_path):
    """``rows(family)``: the encoder, and rows with one image, two, none, and one."""

    def make(family):
        encoder = encoder_of(family)
        shown = [draw(tmp_path / f"{number}.png", *size, number) for number, size in enumerate(SIZES[:4])]
        texts = ["See <image>!", "From <image> to <image> and on.", "Just words, no picture.", "<image> End."]
        media = [shown[:1], shown[1:3], [], shown[3:]]
        made = [ids_of(encoder, text, one) for text, one in zip(texts, media, strict=True)]
        made[2].pop("media")
        return encoder, texts, media, made

    return make


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_batch_has_the_tokens_and_pixels_of_the_real_processor(rows, family):
    encoder, texts, media, made = rows(family)
    batch = Collator(pad_id=encoder.processor.tokenizer.pad_token_id, media=encoder)(made)
    images = [encoder.images.read(one) for shows in media for one in shows]
    theirs = encoder.processor(images=images, text=texts, padding=True, padding_side="right", return_tensors="pt")
    assert batch.keys() - {"labels"} == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(batch[name], tensor), name


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_batch_without_any_image_is_a_text_batch(rows, family):
    encoder, _, _, made = rows(family)
    batch = Collator(media=encoder)([made[2], made[2]])
    assert batch.keys() == {"input_ids", "labels", "attention_mask"}
    assert torch.isfinite(tiny(family).model(trainable=False)(**batch).loss)


def test_tokens_of_images_are_never_trained(rows):
    encoder, _, _, made = rows("llava")
    for row in made:
        row["labels"] = row["input_ids"].copy()
    batch = Collator(media=encoder, kept_logits=True)(made)
    assert encoder.processor.image_token_id not in batch["labels"]
    assert encoder.processor.image_token_id not in batch["shift_labels"]
    assert (batch["labels"] != -100).sum() == sum((row["input_ids"] != 2560).sum() for row in made)


def packed(rows):
    joined = {key: np.concatenate([row[key] for row in rows]) for key in ("input_ids", "labels")}
    for row in rows:
        row["labels"][0] = -100
    joined["labels"] = np.concatenate([row["labels"] for row in rows])
    joined["position_ids"] = np.concatenate([np.arange(len(row["input_ids"])) for row in rows])
    return joined | {"media": tuple(one for row in rows for one in row.get("media", ()))}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("kept", [False, True])
def test_packed_rows_with_several_images_do_not_see_each_other(rows, family, kept, attention):
    """The loss of a packed, padded batch is that of its rows, each alone through the real processor."""
    encoder, texts, media, made = rows(family)
    model = tiny(family).model(trainable=False).eval()
    model.set_attn_implementation(attention)
    model.config.get_text_config().use_cache = False
    alone = 0.0
    for text, shows, row in zip(texts, media, made, strict=True):
        images = [encoder.images.read(one) for one in shows]
        inputs = encoder.processor(images=images or None, text=text, return_tensors="pt")
        with torch.no_grad():
            logprobs = model(**inputs).logits[0].log_softmax(-1)
        for position, label in enumerate(row["labels"][1:]):
            alone -= float(logprobs[position, label]) if label != -100 else 0.0
    batch = Collator(kept_logits=kept, media=encoder)([packed(made[:3]), packed(made[3:])])
    assert "attention_mask" not in batch
    together = model(**batch, num_items_in_batch=1).loss
    assert together.item() == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("packing", [False, True])
def test_a_blank_image_behind_a_text_batch_changes_no_loss_and_reaches_the_tower(rows, family, packing):
    """What a process trains on while others have images: every weight gets a gradient, the tower's is zero."""
    encoder, _, _, made = rows(family)
    text = {key: value for key, value in made[2].items() if key != "media"}
    if packing:
        text["position_ids"] = np.arange(len(text["input_ids"]))
    ids = encoder.processor.tokenizer(encoder.expand(encoder.blanks)[0], add_special_tokens=False)["input_ids"]
    model = tiny(family).model(trainable=False)
    found = []
    for blanks in ({}, {"image": {"input_ids": ids, "media": encoder.blanks}}):
        model.zero_grad()
        batch = Collator(media=encoder, blanks=blanks, kept_logits=True)([text, text])
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
        found.append((loss.item(), gradients))
    (plain, wanted), (with_blank, got) = found
    assert with_blank == pytest.approx(plain, rel=1e-6)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient)
    beside = {name for name in got if "vision_tower" in name or "multi_modal_projector" in name}
    assert any("vision_tower" in name for name in beside)
    assert not any(got[name].any() for name in beside)
    with_images = Collator(media=encoder, blanks=blanks)([made[0], text])
    assert torch.equal(with_images["input_ids"], Collator(media=encoder)([made[0], text])["input_ids"])


# Runs


def written(tmp_path, rows):
    """The name of a data set of these (instruction, answer, images)."""
    (tmp_path / "rows.json").write_text(
        json.dumps([{"instruction": text, "output": answer, "images": images} for text, answer, images in rows])
    )
    columns = {"prompt": "instruction", "response": "output", "images": "images"}
    info = {"drawn": {"file_name": "rows.json", "columns": columns}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    return {"dataset": "drawn", "dataset_dir": str(tmp_path)}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A data set of drawn pictures, some rows without; rows are not taken from another test's cache."""
    monkeypatch.setattr("ftk_data.cache.folder", lambda: tmp_path / "cache" / "rows")
    for number, size in enumerate(SIZES[:4]):
        draw(tmp_path / f"{number}.png", *size, number)
    return written(
        tmp_path,
        [
            ("<image>What is it?", "A red thing.", ["0.png"]),
            ("Compare <image> with <image>", "They differ a lot.", ["1.png", "2.png"]),
            ("Hello", "Hi there.", []),
            ("Is it wide? <image>", "Very.", ["3.png"]),
        ],
    )


def losses_of(finished):
    lines = [json.loads(line) for line in (finished.folder / "trainer_log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


COMMON = {"finetuning_type": "full", "cutoff_len": 512, "disable_shuffling": True, "per_device_train_batch_size": 4}
PARTS = ("freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model")
ALL = {key: False for key in PARTS if key in Registry.discover().options}
"""Every part learns; without ftk-vlm it does so anyway."""
KINDS_OF_TUNING = [kind for kind in ("full", "lora") if kind in Registry.discover().specs("adapter")]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_run_has_the_losses_of_transformers_model_and_processor(ftk_run, drawn, tmp_path, family):
    """Each conversation written out by hand, then through the real processor; the mean over all answers' tokens."""
    finished = ftk_run(**COMMON, **drawn, model_name_or_path=f"ftk://random/{family}", max_steps=3)
    run = tiny(family)
    model, processor = run.model(trainable=False), run.processor
    total, count = 0.0, 0
    for row in json.loads((tmp_path / "rows.json").read_text()):
        prompt = f"<|im_start|>user\n{row['instruction']}<|im_end|>\n<|im_start|>assistant\n"
        images = [Image.open(tmp_path / name) for name in row["images"]] or None
        ids = [len(processor(images=images, text=text)["input_ids"][0]) for text in (prompt, prompt + row["output"])]
        inputs = processor(images=images, text=f"{prompt}{row['output']}<|im_end|>", return_tensors="pt")
        assert inputs["input_ids"].shape[1] == ids[1] + 1
        with torch.no_grad():
            logprobs = model(**inputs).logits[0].log_softmax(-1)
        for position in range(ids[0], ids[1] + 1):
            total -= float(logprobs[position - 1, inputs["input_ids"][0, position]])
            count += 1
    losses = losses_of(finished)
    assert losses[0] == pytest.approx(total / count, rel=1e-5)
    assert losses[0] > losses[1] > losses[2]
    assert finished.record["chosen"]["media"] == [family]
    assert {"ftk-media", "ftk-media-llava"} <= finished.record["plugins"].keys()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_packing_and_streaming_change_no_loss(ftk_run, drawn, tmp_path, family):
    found = []
    for streaming, packing in itertools.product((False, True), repeat=2):
        out = str(tmp_path / f"{streaming} {packing}")
        more = {"packing": packing, "streaming": streaming, "output_dir": out, "max_steps": 2, **ALL}
        found.append(losses_of(ftk_run(**COMMON, **drawn, **more, model_name_or_path=f"ftk://random/{family}")))
    assert len(found[0]) == 2
    assert all(losses == pytest.approx(found[0], rel=1e-5) for losses in found)
    rows = Run(plan(tmp_path, family, packing=True, **drawn)).rows("train")
    assert len(rows) == 1
    assert len(rows[0]["media"]) == 4


def test_batches_of_one_with_and_without_images_and_workers(ftk_run, drawn, tmp_path):
    more = {**COMMON, **drawn, "model_name_or_path": "ftk://random/llava", "max_steps": 2}
    whole = losses_of(ftk_run(**more))
    for workers in (0, 1):
        sizes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "dataloader_num_workers": workers}
        out = str(tmp_path / f"workers {workers}")
        assert losses_of(ftk_run(**{**more, **sizes}, output_dir=out)) == pytest.approx(whole, rel=1e-5)


TWO_PROCESSES = """
import json, sys
from pathlib import Path
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_training.fitting import fit
run = Run(plan_in(Path(sys.argv[2]), **json.loads(sys.argv[1])))
run.output_dir.mkdir(exist_ok=True)
fit(run)
"""


def test_two_processes_of_which_one_has_no_image_train_as_one(ftk_run, drawn, tmp_path):
    """In the second step one has text alone, and sees a blank image. LLaVA does not use its tower's last layer, which
    DistributedDataParallel has to be told."""
    more = {**COMMON, **drawn, "model_name_or_path": "ftk://random/llava", "max_steps": 2, "logging_steps": 1, **ALL}
    one = losses_of(ftk_run(**{**more, "per_device_train_batch_size": 2}, output_dir=str(tmp_path / "one")))
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    sizes = {"per_device_train_batch_size": 1, "ddp_backend": "gloo", "ddp_find_unused_parameters": True}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "two.py"]
    arguments = [*command, json.dumps({**more, **sizes}), str(tmp_path)]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "out" / "trainer_log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if "loss" in line] == pytest.approx(one, rel=1e-4)


def test_prompts_may_be_trained_but_not_their_images(drawn, tmp_path):
    run = Run(plan(tmp_path, **drawn, train_on_prompt=True))
    row = run.rows("train")[0]
    image = row["input_ids"] == run.processor.image_token_id
    assert image.sum() == 16
    assert (row["labels"][image] == -100).all()
    assert (row["labels"][~image] == row["input_ids"][~image]).all()


def test_lora_learns_beside_the_language_model_alone(ftk_run, drawn):
    more = {"finetuning_type": "lora", "model_name_or_path": "ftk://random/llava", "max_steps": 3}
    finished = ftk_run(**{**COMMON, **more}, **drawn)
    losses = losses_of(finished)
    assert losses[2] < losses[0]
    run = open_run("chat", str(finished.folder))
    before, after = tiny().model(trainable=False).state_dict(), run.model(trainable=False).state_dict()
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"language_model"}


def test_a_result_is_a_whole_model_with_its_processor(ftk_run, drawn):
    finished = ftk_run(**COMMON, **drawn, model_name_or_path="ftk://random/llava", max_steps=2)
    model = AutoModelForImageTextToText.from_pretrained(finished.folder)
    processor = AutoProcessor.from_pretrained(finished.folder)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(images=Image.new("RGB", (50, 40)), text=text, return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=2, min_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2
    base = json.loads((Path(tiny().model_path) / "config.json").read_text())
    assert json.loads((finished.folder / "config.json").read_text()) == base, "use_cache is as it was"
    card = (finished.folder / "README.md").read_text()
    assert "AutoProcessor.from_pretrained" in card
    again = open_run("chat", str(finished.folder))
    assert type(again.processor).__name__ == "LlavaProcessor"


@pytest.mark.parametrize(("kind", "streaming"), list(zip(KINDS_OF_TUNING, (False, True), strict=False)))
def test_an_interrupted_run_goes_on_with_the_same_losses(ftk_run, drawn, tmp_path, kind, streaming):
    more = {**COMMON, **drawn, "model_name_or_path": "ftk://random/llava", "save_strategy": "steps", "save_steps": 2}
    more |= {"finetuning_type": kind, "streaming": streaming, "per_device_train_batch_size": 1, **ALL}
    whole = ftk_run(**more, max_steps=4, output_dir=str(tmp_path / "whole"))
    again = ftk_run(
        **more, max_steps=4, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"),
    )  # fmt: skip
    assert losses_of(again)[-2:] == losses_of(whole)[-2:]
    assert len({*losses_of(whole)}) == 4


# Answers

ASKED = [
    (("Look: ", 0), ("user",)),
    ((1, " and ", 2, " differ?"), ("user",)),
    (("Just words.",), ("user",)),
    ((3, "Is it wide?"), ("user",)),
]


@pytest.fixture
def asked(tmp_path):
    """Prompts with an image, two, none, and one; and what the real processor is given for each."""
    shown = [draw(tmp_path / f"{number}.png", *size, number) for number, size in enumerate(SIZES[:4])]
    prompts, inputs = [], []
    for parts, _ in ASKED:
        content = tuple(Text(part) if isinstance(part, str) else shown[part] for part in parts)
        said = "".join(part if isinstance(part, str) else "<image>" for part in parts)
        images = [Image.open(shown[part].source) for part in parts if isinstance(part, int)]
        prompts.append(Prompt((Message("user", content),)))
        inputs.append((f"<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n", images or None))
    return prompts, inputs


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_engine_answers_as_transformers_does_with_the_real_processor(asked, family):
    prompts, inputs = asked
    run = tiny(family)
    engine = run.engine()
    greedy = Sampling(max_new_tokens=8, do_sample=False)
    replies = engine.generate(prompts, greedy)
    assert [engine.generate([prompt], greedy)[0] for prompt in prompts] == replies
    assert ["".join(engine.stream(prompt, greedy)) for prompt in prompts] == [reply.text for reply in replies]
    for reply, (text, images) in zip(replies, inputs, strict=True):
        given = run.processor(images=images, text=text, return_tensors="pt")
        out = run.model(trainable=False).generate(**given, max_new_tokens=8, do_sample=False, eos_token_id=2)
        width = given["input_ids"].shape[1]
        assert reply.text == run.tokenizer.decode([t for t in out[0, width:] if t != 2], skip_special_tokens=True)
        assert reply.num_prompt_tokens == width


def test_an_answer_is_scored_with_its_image(asked):
    """Against the sum over the answer's tokens that transformers' processor and model give."""
    prompts, inputs = asked
    run = tiny()
    engine = run.engine()
    for prompt, (text, images) in zip(prompts, inputs, strict=True):
        given = run.processor(images=images, text=f"{text}A thing.<|im_end|>", return_tensors="pt")
        before = run.processor(images=images, text=text)["input_ids"][0]
        with torch.no_grad():
            logprobs = run.model(trainable=False)(**given).logits[0].log_softmax(-1)
        ids = given["input_ids"][0]
        wanted = sum(float(logprobs[i - 1, ids[i]]) for i in range(len(before), len(ids))) / (len(ids) - len(before))
        scored = engine.score([Prompt((*prompt.messages, Message("assistant", "A thing.")))])
        assert scored[0] == pytest.approx(wanted, rel=1e-4)


def test_what_cannot_be_shown_is_one_line(asked, tmp_path):
    engine = tiny().engine()
    for content, said in [
        ((Media("image", str(tmp_path / "none.png")),), "none.png: there is no such file"),
        ((Media("video", "a.mp4"),), "has 1 video"),
        ("an <image> tag", "has more <image> placeholders than images"),
    ]:
        with pytest.raises(DataError, match=said) as error:
            engine.generate([Prompt((Message("user", content),))], Sampling(max_new_tokens=2))
        assert "\n" not in str(error.value)


def test_chat_shows_an_image_to_what_a_run_has_made(ftk_run, ftk_cli, drawn, tmp_path):
    finished = ftk_run(**COMMON, **drawn, model_name_or_path="ftk://random/llava", max_steps=2)
    words = ["chat", finished.folder, "--do_sample", "false", "--max_new_tokens", "4", "--prompt", "What is it?"]
    seen = [ftk_cli(*words, *more) for more in ([], ["--image", str(tmp_path / "0.png")])]
    assert [one.exit_code for one in seen] == [0, 0], seen[1].output
    run = open_run("chat", str(finished.folder))
    content = (Media("image", str(tmp_path / "0.png")), Text("What is it?"))
    reply = run.engine().generate([Prompt((Message("user", content),))], Sampling(max_new_tokens=4, do_sample=False))
    assert seen[1].stdout == reply[0].text + "\n"
    assert seen[0].stdout != seen[1].stdout


# Errors


def rows_error(tmp_path, *rows, **more):
    with pytest.raises(DataError) as error:
        Run(plan(tmp_path, **written(tmp_path, rows), **more)).rows("train")
    assert "\n" not in str(error.value)
    return str(error.value)


GOOD = ("<image>What?", "A thing.", ["0.png"])


def test_placeholders_and_images_that_disagree_name_the_row(drawn, tmp_path):
    more = rows_error(tmp_path, GOOD, ("<image><image>Both?", "Yes.", ["0.png"]))
    assert "rows.json:1, row 2: " in more
    assert "has more <image> placeholders than images" in more
    fewer = rows_error(tmp_path, GOOD, GOOD, ("<image>Both?", "Yes.", ["0.png", "1.png"]))
    assert "rows.json:1, row 3: " in fewer
    assert "has 1 images more than <image> placeholders" in fewer


def test_an_image_that_is_missing_or_broken_names_the_row(drawn, tmp_path):
    assert "rows.json:1, row 2: " in (said := rows_error(tmp_path, GOOD, ("<image>?", "Yes.", ["none.png"])))
    assert "none.png: there is no such file" in said
    (tmp_path / "text.png").write_text("not an image")
    assert "text.png: is no image that Pillow can read" in rows_error(tmp_path, ("<image>?", "Yes.", ["text.png"]))


def test_a_bad_image_may_be_skipped_and_the_cache_says_that_it_was(drawn, tmp_path, caplog):
    made = written(tmp_path, [GOOD, ("<image>?", "Yes.", ["none.png"])])
    rows = lambda **more: Run(plan(tmp_path, **made, on_bad_row="skip", **more)).rows("train")  # noqa: E731
    assert len(rows()) == 1
    assert "overwrite_cache" not in caplog.text
    draw(tmp_path / "none.png", 40, 30)
    assert len(rows()) == 1
    assert "drawn: 1 rows were skipped when they were first read. overwrite_cache: true reads them again" in caplog.text
    assert len(rows(overwrite_cache=True)) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_ends_with_one_line_at_an_image_that_turns_out_broken(ftk_run, drawn, tmp_path, workers):
    content = (tmp_path / "3.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    made = written(tmp_path, [("<image>?", "Yes.", ["cut.png"])])
    with pytest.raises(DataError) as error:
        ftk_run(**COMMON, **made, model_name_or_path="ftk://random/llava", dataloader_num_workers=workers)
    assert str(error.value).startswith(f"{tmp_path / 'cut.png'}: the image is damaged: ")
    assert "\n" not in str(error.value)


def test_a_cut_off_image_is_an_error_when_its_batch_is_made(drawn, tmp_path):
    content = (tmp_path / "3.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    run = Run(plan(tmp_path, **written(tmp_path, [("<image>?", "Yes.", ["cut.png"])])))
    with pytest.raises(DataError, match=r"cut\.png: the image is damaged"):
        Collator(media=run.media)([run.rows("train")[0]])


def test_an_image_that_has_changed_since_is_an_error(drawn, tmp_path):
    run = Run(plan(tmp_path, "llava_next", **drawn))
    row = run.rows("train")[0]
    draw(tmp_path / "0.png", 30, 90)
    with pytest.raises(DataError, match=r"0\.png, of \d+ tokens. Has a file changed since the rows were made\?"):
        Collator(media=run.media)([row])


def test_videos_are_refused(encoder_of):
    with pytest.raises(DataError, match=r"a\.mp4: is of kind video, and this model takes images alone"):
        encoder_of().expand([Media("video", "a.mp4")])


def test_a_model_without_its_processor_is_one_line(tmp_path):
    folder = Path(shutil.copytree(tiny().model_path, tmp_path / "model"))
    content = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**content, "patch_size": None}))
    with pytest.raises(ModelError, match=r"its LlavaProcessor does not say patch_size\. Add it to processor_config"):
        Run(plan_in(tmp_path, model_name_or_path=str(folder))).media  # noqa: B018 (a property that loads)
    (folder / "processor_config.json").unlink()
    with pytest.raises(ModelError, match=r"model: has no processor_config\.json"):
        Run(plan_in(tmp_path, model_name_or_path=str(folder))).media  # noqa: B018 (a property that loads)


# The demo data of LLaMA-Factory


@pytest.fixture
def demo(tmp_path, monkeypatch):
    if not (DEMO / "mllm_demo.json").exists():
        pytest.skip("the demo data is not here")
    monkeypatch.setattr("ftk_data.cache.folder", lambda: tmp_path / "cache" / "rows")
    return json.loads((DEMO / "mllm_demo.json").read_text())


def test_the_demo_conversations_train(ftk_run, demo, tmp_path):
    """Six conversations with an image or two, the second one in a later turn; here as columns."""
    rows = []
    for row in demo:
        texts = [message["content"] for message in row["messages"]]
        history = [texts[i : i + 2] for i in range(0, len(texts) - 2, 2)]
        images = [str(DEMO / path) for path in row["images"]]
        rows.append({"instruction": texts[-2], "output": texts[-1], "history": history, "images": images})
    (tmp_path / "demo.json").write_text(json.dumps(rows))
    columns = {"prompt": "instruction", "response": "output", "history": "history", "images": "images"}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"demo": {"file_name": "demo.json", "columns": columns}}))
    more = {"dataset": "demo", "dataset_dir": str(tmp_path), "packing": True, "max_steps": 3}
    _check_demo(ftk_run(**COMMON, **more, model_name_or_path="ftk://random/llava", seed=1), packing=True)


@pytest.mark.skipif("sharegpt" not in Registry.discover().specs("converter"), reason="ftk-sharegpt is not installed")
@pytest.mark.parametrize("kind", KINDS_OF_TUNING)
def test_the_demo_data_trains_as_it_is_with_the_same_losses_packed_or_not(ftk_run, demo, tmp_path, kind):
    """All six rows are one batch, or one packed row of three or less; both learn the same."""
    more = {**COMMON, "dataset": "mllm_demo", "dataset_dir": str(DEMO), "max_steps": 3, "finetuning_type": kind}
    more |= {"per_device_train_batch_size": 6, **ALL, "model_name_or_path": "ftk://random/llava"}
    found = []
    for packing in (False, True):
        finished = ftk_run(**more, packing=packing, output_dir=str(tmp_path / str(packing)))
        _check_demo(finished, packing)
        found.append(losses_of(finished))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def _check_demo(finished, packing):
    losses = losses_of(finished)
    assert losses[-1] < losses[0]
    report = json.loads((finished.folder / "data_report.json").read_text())["train"]
    assert report["num_rows"] == (3 if packing else 6)
    rows = Run(finished.plan).rows("train")
    assert sum(len(row["media"]) for row in rows) == 8
