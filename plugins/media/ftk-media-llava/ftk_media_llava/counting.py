"""How many tokens an image becomes, from its size and the processor's configuration.

Sizes are (width, height); the lists in configurations are (height, width).
"""

from __future__ import annotations

from typing import Any

from transformers.image_processing_utils import select_best_resolution

Size = tuple[int, int]


def llava_tokens(processor: Any, size: Size) -> int:
    """LLaVA 1.5: one for each patch of the square that the tower sees."""
    width, height = seen_size(processor.image_processor, size)
    return _patches(processor, width) * _patches(processor, height) + _further(processor)


def llava_next_tokens(processor: Any, size: Size) -> int:
    """LLaVA-NeXT: the whole image in one tile, and the tiles of the grid that fits best, without its black borders and
    with a token at the end of each line of patches."""
    tile_width, tile_height = seen_size(processor.image_processor, size)
    across, down = _patches(processor, tile_width), _patches(processor, tile_height)
    width, height = size
    grid = select_best_resolution((height, width), processor.image_processor.image_grid_pinpoints)
    lines, columns = _without_borders(size, (across * (grid[1] // tile_width), down * (grid[0] // tile_height)))
    return across * down + lines * columns + lines + _further(processor)


def _patches(processor: Any, side: int) -> int:
    return int(side) // int(processor.patch_size)


def _further(processor: Any) -> int:
    """Tokens of the tower beside the patches (CLIP has one for the class), less the one that ``default`` drops."""
    dropped = processor.vision_feature_select_strategy == "default"
    return int(processor.num_additional_image_tokens) - int(dropped)


def _without_borders(size: Size, patches: Size) -> Size:
    """Lines and columns of patches that hold something of the image, which stands in the middle of the grid.

    As the model cuts them off, rounding included (``unpad_image`` in transformers' modeling_llava_next).
    """
    width, height = size
    columns, lines = patches
    if width / height > columns / lines:
        lines -= (lines - int(round(height * (columns / width), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * (lines / height), 7))) // 2 * 2
    return lines, columns


def seen_size(image_processor: Any, size: Size) -> Size:
    """The (width, height) of what the vision tower gets for an image."""
    if image_processor.do_center_crop:
        crop = image_processor.crop_size
        return int(crop["width"]), int(crop["height"])
    wanted = image_processor.size if image_processor.do_resize else {}
    if wanted.get("height") and wanted.get("width"):
        return int(wanted["width"]), int(wanted["height"])
    edge = wanted.get("shortest_edge")
    if edge is None or getattr(image_processor, "do_pad", False):
        return (edge, edge) if edge else size
    width, height = size
    short, long = min(size), max(size)
    long = int(edge * long / short)
    return (edge, long) if width <= height else (long, edge)
