"""Which families of transformers can be rehearsed: ``python tests/e2e/shrinking.py [FAMILY ...]``.

Each family's config at its published size is shrunk as ``ftk run --rehearse`` does it, and the model does a forward
and a backward pass on a few tokens. Prints a line for each and the numbers; families whose class has defaults with
which its own code does not work either are among those that fail.
"""

import sys
import time
import warnings

import torch
import transformers
from ftk_verify.shrinking import MOST, shrunk
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

NUM_TOKENS = 24


def tried(family):
    """What the small model is. Raises whatever stands in its way."""
    small = shrunk(CONFIG_MAPPING[family]())
    small = type(small).from_dict(small.to_dict())
    auto = AutoModelForCausalLM if family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else AutoModelForImageTextToText
    with torch.device("meta"):
        size = auto.from_config(small).num_parameters()
    if size > MOST:
        raise ValueError(f"it has {size:,} parameters")
    ids_BT = torch.arange(3, 3 + NUM_TOKENS)[None]
    loss = auto.from_config(small)(input_ids=ids_BT, labels=ids_BT).loss
    loss.backward()
    if not torch.isfinite(loss):
        raise ValueError(f"its loss is {loss.item()}")
    layers = getattr(small.get_text_config(decoder=True), "num_hidden_layers", "?")
    return f"{size / 1e6:6.1f} million parameters, {layers} layers"


def main(families):
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    good = 0
    for family in families:
        began = time.monotonic()
        try:
            said = f"ok    {family:<28}{tried(family)}, {time.monotonic() - began:.1f} s"
            good += 1
        except Exception as error:
            said = f"FAILS {family:<28}{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        print(said, flush=True)
    print(f"{good} of {len(families)} families")


if __name__ == "__main__":
    main(sys.argv[1:] or sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}))
