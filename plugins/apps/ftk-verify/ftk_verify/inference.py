"""Whether a model is trained on what it will be shown and asked for.

The engine itself is tried, whatever it is: its model is made to say what the row trains, token by token, and then the
engine has to stop. What it shows the model is what counts as its prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from ftk import ChatExample, DataError, Engine, FeedbackExample, PairExample, Prompt, Sampling
from ftk_training.checks import NotApplicable, Outcome
from ftk_training.collator import IGNORED

from ftk_verify.bench import UNPACKED, Bench, muted

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk.types import Example, RunningEngine

NUM_ROWS = 6
MOST_ASKED = 3
"""Answers that the engine is made to give; each takes a pass through the model for each token."""
MOST_TOKENS = 48
"""Longer answers are given from their end: what comes before the last tokens is shown with the prompt."""
AFTER = 3
MARGIN = 1e4


class Span(NamedTuple):
    """One answer of a row: the tokens before it, and those that it trains."""

    before: list[int]
    answer: list[int]


def trained_text_is_inferred_text(bench: Bench) -> Outcome:
    """Each answer of the first rows stands behind tokens that the engine would show, and ends where it would stop."""
    if bench.examples_kind == "text":
        raise NotApplicable("the stage learns plain text, in which nobody asks and answers")
    known = bench.plan.registry.options
    if "train_on_prompt" in known and bench.plan.value("train_on_prompt"):
        raise NotApplicable("train_on_prompt: true trains more than answers")
    settings = {"cutoff_len": 2**20, **UNPACKED}
    rows = bench.rows(NUM_ROWS, **settings)
    spans = [span for index in range(min(NUM_ROWS, len(rows))) for span in spans_of(rows[index])]
    run = bench.answering()
    engine_spec = run.plan.one("engine")
    if isinstance(engine_spec, Engine) and not engine_spec.loads_model:
        default = run.plan.registry.default("engine")
        if default is None:
            raise NotApplicable(f"{engine_spec.name} loads the model itself, so it cannot be made to say something")
        run = bench.answering(infer_backend=default.name)
    with muted():
        found = _prompts(bench, run, spans)
        missing = [span for span in spans if tuple(span.before) not in found]
        if missing:
            return _not_shown(run, missing, len(spans), found)
        if bench.examples_kind == "prompts":
            return Outcome(True, f"{len(spans)} prompts are what the engine shows")
        asked = sorted(spans, key=lambda span: len(span.answer))[:MOST_ASKED]
        return _stopped(run, asked, found, len(spans))


def spans_of(row: Mapping[str, Any]) -> Iterator[Span]:
    """The answers of a row, both of a pair's; of a row of prompts its prompt alone."""
    for prefix in ("", "chosen_", "rejected_"):
        if f"{prefix}input_ids" not in row:
            continue
        ids_T, labels_T = np.asarray(row[f"{prefix}input_ids"]), np.asarray(row[f"{prefix}labels"])
        if len(ids_T) != len(labels_T):
            yield Span(ids_T.tolist(), [])
            continue
        trained_T = np.concatenate(([False], labels_T != IGNORED, [False]))
        edges = np.flatnonzero(trained_T[1:] != trained_T[:-1])
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            yield Span(ids_T[:first].tolist(), ids_T[first:last].tolist())


def prompts_of(example: Example) -> Iterator[Prompt]:
    """What is asked in an example: each conversation up to an answer."""
    if isinstance(example, PairExample):
        yield Prompt(example.messages, example.tools)
    elif isinstance(example, ChatExample | FeedbackExample):
        for number, message in enumerate(example.messages):
            if message.role == "assistant":
                yield Prompt(example.messages[:number], example.tools)
        if example.messages and example.messages[-1].role != "assistant":
            yield Prompt(example.messages, example.tools)


def _prompts(bench: Bench, run: Run, spans: Sequence[Span]) -> dict[tuple[int, ...], Prompt]:
    """Tokens → the prompt that the engine shows as these, until all that the rows need are found."""
    from ftk_data import renderer
    from ftk_data.prompts import PromptEncoder

    encoder = PromptEncoder(renderer(run), run.tokenizer, run.media if run.processor is not None else None)
    needed = {tuple(span.before) for span in spans}
    found: dict[tuple[int, ...], Prompt] = {}
    for example in bench.examples():
        for prompt in prompts_of(example):
            try:
                (ids,) = encoder.ids([(prompt.messages, prompt.tools)])
            except DataError:
                continue
            found.setdefault(tuple(ids), prompt)
        if needed <= found.keys():
            break
    return found


def _not_shown(run: Run, missing: Sequence[Span], total: int, found: Mapping[tuple[int, ...], Prompt]) -> Outcome:
    """The first of the answers that no prompt leads to, with the prompt that comes nearest."""
    span = missing[0]
    nearest = max(found, key=lambda ids: _shared(ids, span.before), default=())
    at = _shared(nearest, span.before)
    decode = run.tokenizer.decode
    shown = (f"trained after {decode(span.before[:at])[-40:]!r}: {decode(span.before[at : at + 12])!r}",
             f"the engine shows there: {decode(list(nearest[at : at + 12]))!r}")  # fmt: skip
    return Outcome(False, f"{len(missing)} of {total} answers stand behind tokens that no prompt has", "exact", shown)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _stopped(run: Run, spans: Sequence[Span], found: Mapping[tuple[int, ...], Prompt], total: int) -> Outcome:
    model = run.model(trainable=False)
    engine = run.engine(model)
    try:
        for span in spans:
            if outcome := _said(run, engine, model, span, found[tuple(span.before)]):
                return outcome
    finally:
        engine.close()
    last = run.tokenizer.decode(spans[0].answer[-1:])
    return Outcome(True, f"{total} prompts are the engine's; it stops at {last!r}", "exact")


def _said(run: Run, engine: RunningEngine, model: Any, span: Span, prompt: Prompt) -> Outcome | None:
    """What is wrong when the model says what the row trains."""
    answer = span.answer[:MOST_TOKENS]
    if len(answer) < len(span.answer):
        answer = [*span.answer[: MOST_TOKENS - 1], span.answer[-1]]
    other = next(token for token in range(len(run.tokenizer)) if token not in answer)
    with says(model, [*answer, *[other] * AFTER]) as shown:
        sampling = Sampling(max_new_tokens=len(answer) + AFTER, do_sample=False)
        (reply,) = engine.generate([prompt], sampling)
    if shown[0] != span.before:
        return Outcome(False, "the engine shows the model other tokens than stand before the answer", "exact")
    if reply.finish == "stop" and reply.num_tokens == len(answer):
        return None
    end = run.tokenizer.decode(answer[-1:])
    if reply.finish == "stop":
        return Outcome(
            False, f"the engine stops after {reply.num_tokens} tokens of an answer of {len(answer)}", "exact"
        )
    return Outcome(False, f"the last trained token is {end!r}, at which the engine does not stop", "exact")


@contextmanager
def says(model: Any, tokens: Sequence[int]) -> Iterator[list[list[int]]]:
    """Make a model say some tokens; yields what it is shown at each pass."""
    shown: list[list[int]] = []

    def force(module: Any, arguments: Any, named: dict[str, Any], outputs: Any) -> Any:
        ids = named.get("input_ids", arguments[0] if arguments else None)
        place = min(len(shown), len(tokens) - 1)
        shown.append(ids[0].tolist() if isinstance(ids, torch.Tensor) else [])
        outputs.logits[..., -1, :] = -MARGIN
        outputs.logits[..., -1, tokens[place]] = MARGIN
        return outputs

    handle = model.register_forward_hook(force, with_kwargs=True)
    try:
        yield shown
    finally:
        handle.remove()
