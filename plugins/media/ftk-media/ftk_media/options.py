"""The options of media. Names and defaults are LLaMA-Factory's."""

from __future__ import annotations

import ftk


@ftk.options
class MediaOptions:
    """Where images, videos and sounds lie, and how large they may be."""

    media_dir: str | None = ftk.option(
        None, help="Folder that paths of images, videos and sounds start from; unset is that of their data set."
    )
    image_max_pixels: int = ftk.option(768 * 768, help="Larger images are made smaller, in proportion.", minimum=1)
    image_min_pixels: int = ftk.option(32 * 32, help="Smaller images are made larger, in proportion.", minimum=1)
    image_do_pan_and_scan: bool = ftk.option(False, help="Show crops of long images, too (Gemma 3).")
    crop_to_patches: bool = ftk.option(False, help="Cut large images into tiles (InternVL).")
    video_max_pixels: int = ftk.option(256 * 256, help="Larger frames are made smaller, in proportion.", minimum=1)
    video_min_pixels: int = ftk.option(16 * 16, help="Smaller frames are made larger, in proportion.", minimum=1)
    video_fps: float = ftk.option(2.0, help="Frames taken of each second of a video.", above=0)
    video_maxlen: int = ftk.option(128, help="Most frames taken of a video.", minimum=1)
    use_audio_in_video: bool = ftk.option(False, help="Listen to the sound of a video, too.")
    audio_sampling_rate: int = ftk.option(16000, help="Samples per second that sounds are brought to.", minimum=1)

    def __post_init__(self) -> None:
        for kind in ("image", "video"):
            least, most = getattr(self, f"{kind}_min_pixels"), getattr(self, f"{kind}_max_pixels")
            if least > most:
                raise ValueError(f"{kind}_min_pixels: {least} is more than {kind}_max_pixels {most}")
