"""No pipeline: the rendered texts through ``encode_batch_fast`` in calls of 1,000, which is the floor of all others.
The texts are read and the tokenizer is loaded before the clock starts."""

from __future__ import annotations

import json
from pathlib import Path

from outcome import asked, timed
from tokenizers import Tokenizer


def main() -> None:
    given = asked()
    texts = json.loads((Path(given.data) / f"{given.dataset}_rendered.json").read_text())
    tokenizer = Tokenizer.from_file(f"{given.model}/tokenizer.json")
    tokens = 0
    with timed():
        for first in range(0, len(texts), 1000):
            encoded = tokenizer.encode_batch_fast(texts[first : first + 1000], add_special_tokens=False)
            tokens += sum(len(one.ids) for one in encoded)
    print("COUNTED " + json.dumps({"rows": len(texts), "tokens": tokens, "trained": 0}), flush=True)


if __name__ == "__main__":
    main()
