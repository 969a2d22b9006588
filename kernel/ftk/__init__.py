"""ftk: fine-tuning made of plugins. This is all that a plugin may import from the kernel.

See :mod:`ftk.hookspecs` for what a plugin can add, each hook with a whole plugin as its example.
"""

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
    Launcher,
    MediaProcessor,
    ModelLoader,
    ModelPatch,
    Optimizer,
    Quantizer,
    Tracker,
    Trainer,
)
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
from ftk.version import __version__

__all__ = [
    "Adapter", "ChatExample", "ChatTemplate", "CheckpointError", "Command", "ConfigError", "DataError", "DatasetConverter",
    "DatasetEntry", "DatasetSource", "Engine", "FeedbackExample", "FtkError", "Launcher", "Media", "MediaProcessor",
    "Message", "Metrics", "ModelError", "ModelLoader", "ModelPatch", "Optimizer", "PairExample", "PluginError", "Prompt",
    "Quantizer", "Replaced", "Reply", "Sampling", "Segment", "Text", "TextExample", "Tokens", "ToolCall", "Tracker",
    "Trainer", "__version__", "hookimpl", "option", "options",
]  # fmt: skip
