"""ftk: fine-tuning made of plugins. This is all that a plugin may import from the kernel.

See :mod:`ftk.hookspecs` for what a plugin can add, each hook with a whole plugin as its example.
"""

from typing import TYPE_CHECKING, Any

from ftk.errors import CheckpointError, ConfigError, DataError, FtkError, ModelError, PluginError
from ftk.hookspecs import hookimpl
from ftk.options import Replaced, option, options
from ftk.specs import (
    Adapter,
    ChatTemplate,
    Command,
    DatasetConverter,
    DatasetSource,
    Engine,
    Kind,
    Launcher,
    MediaProcessor,
    ModelLoader,
    ModelPatch,
    Optimizer,
    Quantizer,
    Spec,
    Tracker,
    Trainer,
)
from ftk.version import __version__

if TYPE_CHECKING:
    from ftk.types import (
        ChatExample,
        DatasetEntry,
        FeedbackExample,
        Media,
        Message,
        Metrics,
        PairExample,
        Prompt,
        Reply,
        Sampling,
        Segment,
        Text,
        TextExample,
        Tokens,
        ToolCall,
    )

__all__ = [
    "Adapter", "ChatExample", "ChatTemplate", "CheckpointError", "Command", "ConfigError", "DataError",
    "DatasetConverter", "DatasetEntry", "DatasetSource", "Engine", "FeedbackExample", "FtkError", "Kind", "Launcher",
    "Media", "MediaProcessor", "Message", "Metrics", "ModelError", "ModelLoader", "ModelPatch", "Optimizer",
    "PairExample", "PluginError", "Prompt", "Quantizer", "Replaced", "Reply", "Sampling", "Segment", "Spec", "Text",
    "TextExample", "Tokens", "ToolCall", "Tracker", "Trainer", "__version__", "hookimpl", "option", "options",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The types of :mod:`ftk.types` on first use: declaring a feature needs none, and each costs time to start."""
    if name in __all__:
        from ftk import types

        return getattr(types, name)
    raise AttributeError(f"module 'ftk' has no attribute {name!r}")
