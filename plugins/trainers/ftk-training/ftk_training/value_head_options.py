"""The options of stages whose model has a value head."""

from __future__ import annotations

from ftk import option, options


@options
class ValueHeadOptions:
    """How a value head learns."""

    value_head_dropout: float = option(
        0.0, help="Share of the hidden state that the value head leaves out while training.", minimum=0, maximum=1
    )
