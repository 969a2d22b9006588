"""Opening media, and sizes of images.

References: transformers' ``load_image`` for pixels and sizes (it decodes the file), the formula of LLaMA-Factory's
documentation for the pixel limits, and files damaged on purpose.
"""

import base64
import io
import math
import random
import types
from contextlib import suppress

import pytest
import torch
from ftk import DataError
from ftk.options import build, fields_of
from ftk.testing import check_plugin
from ftk.types import Media
from ftk_media import MediaOptions
from ftk_media.files import Files, frames
from ftk_media.images import Images, fitted
from ftk_media.tokens import check_counts, untrained
from hypothesis import given
from hypothesis import strategies as some
from PIL import ExifTags, Image
from transformers.image_utils import load_image


@pytest.fixture
def images():
    return Images(Files(None), 1, 10**9)


def drawn(width, height, seed=0, mode="RGB"):
    """A picture in which no turn or flip looks like another."""
    chosen = random.Random(seed)
    image = Image.new(mode, (width, height))
    for _ in range(12):
        x, y = chosen.randrange(width), chosen.randrange(height)
        colour = tuple(chosen.randrange(256) for _ in image.getbands())
        image.paste(colour if len(colour) > 1 else colour[0], (x, y, x + width // 3 + 1, y + height // 3 + 1))
    return image


def content_of(image, kind="PNG", **more):
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def picture(source):
    return Media("image", source)


def refused(images, source, *, reading=True):
    with pytest.raises(DataError) as error:
        images.read(picture(source)) if reading else images.size(picture(source))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_plugin_keeps_the_contract():
    assert check_plugin("media")


# Pixels and sizes


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_what_transformers_loads_and_sizes_are_known_before(images, tmp_path, kind, orientation):
    path = tmp_path / "picture"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path.write_bytes(content_of(drawn(40, 24), kind, exif=exif))
    wanted = load_image(str(path))
    got = images.read(picture(str(path)))
    assert (got.mode, got.size, got.tobytes()) == (wanted.mode, wanted.size, wanted.tobytes())
    assert images.size(picture(str(path))) == wanted.size


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(images, mode):
    image = drawn(20, 10).convert(mode)
    got = images.read(picture(content_of(image, "TIFF" if mode == "CMYK" else "PNG")))
    assert (got.mode, got.tobytes()) == ("RGB", image.convert("RGB").tobytes())


def test_sixteen_bits_of_grey_are_scaled(images):
    got = images.read(picture(content_of(Image.new("I;16", (4, 4), 32768))))
    assert got.getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "MPO"])
def test_of_several_pictures_in_a_file_the_first_is_shown(images, tmp_path, kind):
    """Animations, and pages; as transformers loads them."""
    shown = [drawn(20, 10, seed) for seed in (1, 2)]
    path = tmp_path / "picture"
    path.write_bytes(content_of(shown[0], kind, save_all=True, append_images=shown[1:]))
    got, wanted = images.read(picture(str(path))), load_image(str(path))
    assert (got.mode, got.size, got.tobytes()) == (wanted.mode, wanted.size, wanted.tobytes())
    assert images.size(picture(str(path))) == (20, 10)
    with Image.open(path) as opened:
        assert opened.n_frames == 2


@pytest.mark.parametrize("mode", ["P", "L", "LA", "RGBA"])
def test_transparency_is_left_out_as_transformers_does(images, tmp_path, mode):
    image = drawn(20, 10, mode="RGBA")
    image.putalpha(drawn(20, 10, mode="L"))
    path = tmp_path / "picture"
    more = {"transparency": 3} if mode in ("P", "L") else {}
    path.write_bytes(content_of(image.convert("RGB").convert(mode) if more else image.convert(mode), "PNG", **more))
    assert images.read(picture(str(path))).tobytes() == load_image(str(path)).tobytes()


def test_a_video_that_is_a_list_of_frames_is_images():
    video = Media("video", ("a.png", b"raw"))
    assert frames(video) == (Media("image", "a.png"), Media("image", b"raw"))
    assert frames(Media("video", "a.mp4")) == ()
    with pytest.raises(
        DataError, match=r"video of 2 frames, a\.png the first: is a list of frames, and this model takes"
    ):
        Files(None).open(video)


def test_sizes_are_read_without_pixels(images, monkeypatch):
    content = {kind: content_of(drawn(40, 20), kind) for kind in ("PNG", "JPEG", "TIFF", "GIF", "BMP")}

    def refuse(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    for made in content.values():
        assert images.size(picture(made)) == (40, 20)


@given(some.integers(1, 5000), some.integers(1, 5000), some.integers(1, 2000), some.integers(2000, 10**7))
def test_sizes_keep_within_the_limits_and_in_proportion(width, height, least, most):
    pixels = width * height
    new_width, new_height = fitted((width, height), least, most)
    if least <= pixels <= most:
        assert (new_width, new_height) == (width, height)
        return
    scale = math.sqrt((most if pixels > most else least) / pixels)
    assert abs(new_width - width * scale) <= 1
    assert abs(new_height - height * scale) <= 1
    if min(width, height) * scale >= 1:  # else a line of one pixel is as thin as it gets
        assert new_width * new_height <= max(most, pixels)


def test_what_is_read_has_the_size_that_was_told():
    images = Images(Files(None), 32 * 32, 60 * 60)
    for size in ((10, 10), (50, 50), (200, 100), (37, 1900), (3, 2), (1, 4000)):
        one = picture(content_of(drawn(*size)))
        assert images.size(one) == images.read(one).size


def test_limits_are_those_of_the_options(tmp_path):
    run = run_of(tmp_path, image_max_pixels=100, image_min_pixels=25)
    assert Images.of(run).size(picture(content_of(drawn(20, 20)))) == (10, 10)
    assert Images.of(run).size(picture(content_of(drawn(2, 2)))) == (5, 5)


# Where files are


def run_of(tmp_path, entries=(), **options):
    """What files ask of a run: data sets as (folder, fields), and options."""
    planned = [
        types.SimpleNamespace(
            entry=types.SimpleNamespace(folder=folder, fields=fields), source=types.SimpleNamespace(field="file_name")
        )
        for folder, fields in entries
    ]
    made = build(MediaOptions, options)
    plan = types.SimpleNamespace(datasets={"train": planned}, config=str(tmp_path / "run.yaml"))
    return types.SimpleNamespace(plan=plan, options=lambda cls: made)


def test_bytes_data_uris_and_paths_are_the_same(images, tmp_path):
    image = drawn(20, 10)
    content = content_of(image)
    (tmp_path / "a.png").write_bytes(content)
    coded = base64.b64encode(content).decode()
    for source in (content, str(tmp_path / "a.png"), f"data:image/png;base64,{coded}"):
        assert images.read(picture(source)).tobytes() == image.tobytes()
    assert images.files.open(Media("audio", "data:,a%20b")).read() == b"a b"


def test_media_dir_stands_for_the_folder_of_the_data_set(tmp_path):
    for folder in ("data/sub", "pictures/sub"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/sub/1.png").write_bytes(b"wrong")
    (tmp_path / "pictures/sub/1.png").write_bytes(b"right")
    (tmp_path / "pictures/2.png").write_bytes(b"right")
    (tmp_path / "data/3.png").write_bytes(b"right")
    run = run_of(tmp_path, [(str(tmp_path / "data"), {})], media_dir=str(tmp_path / "pictures"))
    for source in (tmp_path / "data/sub/1.png", "sub/1.png", "2.png", tmp_path / "data/3.png"):
        assert Files.of(run).open(picture(str(source))).read() == b"right"
    unset = run_of(tmp_path, [(str(tmp_path / "data"), {})])
    assert Files.of(unset).open(picture(str(tmp_path / "data/sub/1.png"))).read() == b"wrong"


def test_a_path_is_looked_for_beside_a_data_file_in_another_folder_than_its_data_set(tmp_path):
    for folder in ("configs", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data/1.png").write_bytes(b"right")
    run = run_of(tmp_path, [(str(tmp_path / "configs"), {"file_name": "../data/rows.json"})])
    assert Files.of(run).open(picture(str(tmp_path / "configs/1.png"))).read() == b"right"


def test_media_dir_may_start_beside_the_yaml(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/1.png").write_bytes(b"right")
    assert Files.of(run_of(tmp_path, media_dir="pictures")).open(picture("1.png")).read() == b"right"


def test_a_path_is_looked_for_beside_a_data_file_given_as_a_path(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.png").write_bytes(b"right")
    monkeypatch.chdir(tmp_path)
    run = run_of(tmp_path, [("", {"file_name": str(tmp_path / "elsewhere/rows.json")})])
    assert Files.of(run).open(picture("1.png")).read() == b"right"
    (tmp_path / "1.png").write_bytes(b"another")
    with pytest.raises(DataError, match=r"1\.png: is in several folders: .*elsewhere. Set media_dir"):
        Files.of(run).open(picture("1.png"))


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "1.png").write_bytes(b"right")
    assert Files(None).open(picture("~/1.png")).read() == b"right"


# Errors


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere/1.png", "nowhere/1.png: there is no such file. Set media_dir to the folder of the images"),
        ("https://example.org/1.png", "https://example.org/1.png: is an address. Download the image and give its path"),
        ("", "image: its path is empty"),
        ("iVBORw0KGgo" * 200, "is no path. In front of base64 write data:image/FORMAT;base64,"),
        ("name\0.png", "there is no such file"),
        ("a:b.png", "a:b.png: there is no such file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS is a program, which is not run"),
        (b"", "image of 0 bytes: holds nothing"),
        ("data:image/png;base64,%%%", "image data:image/png;base64,%%%...: its base64 is damaged"),
        ("data:image/png;base64", "is no data URI: the comma before the data is missing"),
        ("data:,", "holds nothing"),
        (b"no image", "image of 8 bytes: is no image that Pillow can read. Convert it to PNG or JPEG"),
    ],
)
@pytest.mark.parametrize("reading", [False, True])
def test_what_is_no_image_is_one_line(images, source, said, reading):
    assert said in refused(images, source, reading=reading)


def test_files_that_cannot_be_read_are_one_line(images, tmp_path):
    empty = tmp_path / "empty.png"
    empty.touch()
    assert f"{empty}: the file is empty" in refused(images, str(empty), reading=False)
    assert f"{tmp_path}: is a folder. Give the file of the image" in refused(images, str(tmp_path))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_file_cut_short_is_one_line(images, tmp_path, kind):
    path = tmp_path / "picture"
    content = content_of(drawn(300, 200), kind)
    path.write_bytes(content[: len(content) // 2])
    assert refused(images, str(path)).startswith(f"{path}: ")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_damaged_files_are_read_or_refused(images, kind):
    """Whatever byte is wrong: never another error than DataError."""
    content = bytearray(content_of(drawn(30, 20), kind))
    chosen = random.Random(kind)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chosen.choice((1, 3, 20))):
            damaged[chosen.randrange(len(damaged))] = chosen.randrange(256)
        with suppress(DataError):
            images.read(picture(bytes(damaged)))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_would_fill_the_memory_is_one_line(images, monkeypatch):
    content = content_of(drawn(100, 90))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    for reading in (False, True):
        assert "the image has more than 8,000 pixels" in refused(images, content, reading=reading)


# Options and tokens


def test_options_have_the_names_and_defaults_of_the_peer():
    """reference/llamafactory.md, ProcessorArguments and DataArguments."""
    assert {key: option.default for key, option in fields_of(MediaOptions).items()} == {
        "media_dir": None,
        "image_max_pixels": 589824,
        "image_min_pixels": 1024,
        "image_do_pan_and_scan": False,
        "crop_to_patches": False,
        "video_max_pixels": 65536,
        "video_min_pixels": 256,
        "video_fps": 2.0,
        "video_maxlen": 128,
        "use_audio_in_video": False,
        "audio_sampling_rate": 16000,
    }


def test_limits_that_exclude_everything_are_refused():
    with pytest.raises(ValueError, match="image_min_pixels: 2000 is more than image_max_pixels 1000"):
        build(MediaOptions, {"image_max_pixels": 1000, "image_min_pixels": 2000})


def test_labels_of_media_tokens_are_taken_out():
    labels = torch.tensor([[-100, 7, 7, 5], [7, 1, 2, -100]])
    assert untrained({"labels": labels}, {7})["labels"].tolist() == [[-100, -100, -100, 5], [-100, 1, 2, -100]]
    assert labels[0, 1] == 7, "the batch that was given stays"
    assert untrained({"labels": labels}, {9}) == untrained({}, {7}) == {}


def test_a_row_with_other_tokens_than_its_media_names_them():
    ids = torch.tensor([[7, 7, 1], [7, 1, 1]])
    media = [[picture("a.png")], [picture("b.png")]]
    check_counts(ids, 7, media, [[2], [1]])
    with pytest.raises(DataError, match=r"a row has 1 media tokens and shows b.png, of 3 tokens. Has a file changed"):
        check_counts(ids, 7, media, [[2], [3]])
    with pytest.raises(DataError, match="shows nothing, of 0 tokens"):
        check_counts(ids, 7, [[picture("a.png")], []], [[2], []])
