"""What a random model that sees has beside its language model: a vision tower, tokens for media, a processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ftk import ModelError
from ftk.errors import did_you_mean
from transformers import CONFIG_MAPPING

CHAT = Path(__file__).with_name("seeing_chat.jinja")
VISION = "vision_config."
"""How an address begins the name of a field of the vision tower."""


class Eyes(NamedTuple):
    """A family that sees.

    text, vision: ``model_type`` of the language model and of the tower. sizes: fields of the tower's config.
    fields: further fields of the whole config. tokens: field of the config → the token whose number it holds.
    processor: (tokenizer, config) → the processor that is saved with the model.
    """

    text: str
    vision: str
    sizes: Mapping[str, Any]
    fields: Mapping[str, Any]
    tokens: Mapping[str, str]
    processor: Callable[[Any, Any], Any]


def _llava_processor(tokenizer: Any, config: Any) -> Any:
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    return LlavaProcessor(CLIPImageProcessorPil(**_square(config)), tokenizer, **_patches(config))


def _llava_next_processor(tokenizer: Any, config: Any) -> Any:
    from transformers import LlavaNextImageProcessorPil, LlavaNextProcessor

    images = LlavaNextImageProcessorPil(**_square(config), image_grid_pinpoints=config.image_grid_pinpoints)
    return LlavaNextProcessor(images, tokenizer, **_patches(config))


def _square(config: Any) -> dict[str, Any]:
    side = config.vision_config.image_size
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def _patches(config: Any) -> dict[str, Any]:
    """The class token is the one additional image token."""
    return {
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": 1,
        "chat_template": CHAT.read_text(encoding="utf-8"),
    }


CLIP = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8, "projection_dim": 32,
}  # fmt: skip
IMAGE = {"image_token_id": "<image>"}

EYES: Mapping[str, Eyes] = {
    "llava": Eyes("llama", "clip_vision_model", CLIP, {"image_seq_length": 16}, IMAGE, _llava_processor),
    "llava_next": Eyes(
        "llama", "clip_vision_model", CLIP,
        {"image_grid_pinpoints": [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]}, IMAGE, _llava_next_processor,
    ),
}  # fmt: skip
"""Family → what it has to see with."""


def seeing_config(
    family: str, given: Mapping[str, Any], tokenizer: Any, where: str, text_config: Callable[[str, Any], Any]
) -> Any:
    """The config of a family that sees, with ``given`` over its small sizes: ``vision_config.FIELD`` for the tower,
    fields of the whole, and all others for the language model, whose config ``text_config`` makes.

    Raises ModelError that begins with ``where``.
    """
    eyes, kind = EYES[family], CONFIG_MAPPING[family]
    own = {*kind().to_dict(), *kind.attribute_map} - {*kind.sub_configs, "dtype"}
    of_tower = {key.removeprefix(VISION): value for key, value in given.items() if key.startswith(VISION)}
    of_text = {key: value for key, value in given.items() if key not in own and not key.startswith(VISION)}
    tower = CONFIG_MAPPING[eyes.vision]
    fields = tower().to_dict()
    for key in of_tower:
        if key not in fields:
            guess = did_you_mean(key, fields)
            raise ModelError(f"{where}: {VISION}{key}: is no field of {tower.__name__}.{guess}")
    text = text_config(eyes.text, of_text)
    values = {
        **eyes.fields,
        **{field: tokenizer.convert_tokens_to_ids(token) for field, token in eyes.tokens.items()},
        **{key: value for key, value in given.items() if key in own},
        "dtype": text.dtype,
    }
    named = {kind.attribute_map.get(key, key): value for key, value in values.items()}
    return kind(text_config=text, vision_config=tower(**{**eyes.sizes, "dtype": text.dtype, **of_tower}), **named)


def add_tokens(family: str, tokenizer: Any) -> None:
    """Give the tokenizer the tokens that stand for media, and a chat template that writes them."""
    tokenizer.add_tokens(sorted(set(EYES[family].tokens.values())), special_tokens=True)
    tokenizer.chat_template = CHAT.read_text(encoding="utf-8")


def save_processor(family: str, tokenizer: Any, config: Any, folder: Path) -> None:
    """Write the files from which ``AutoProcessor`` makes the family's processor, the tokenizer's included."""
    EYES[family].processor(tokenizer, config).save_pretrained(folder)
