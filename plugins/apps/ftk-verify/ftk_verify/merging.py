"""Whether what a run leaves behind, loaded for answering, is the model that was trained.

Shapes: T tokens, V words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from ftk_training.checks import NotApplicable, Outcome, Trained

from ftk_verify.bench import Bench, muted
from ftk_verify.by_hand import shown_batch
from ftk_verify.sizes import refuse_small_disk

if TYPE_CHECKING:
    from ftk.run import Run

STIRRED = 0.02
"""Standard deviation of what is added to the weights of a new adapter: many start at zero, and learn little at once."""
MOST_TOKENS = 256


def loaded_equals_trained(bench: Bench) -> Outcome:
    """A step with the adapter stirred up, saved, loaded again as ``ftk chat`` does it, which merges it.

    On a quantised base it stays beside it; there it is merged into dequantised weights, too, as an export does it.
    """
    adapter = getattr(bench.plan.one("adapter"), "saves", "model") == "adapter"

    def prepare(model: Any) -> None:
        refuse_small_disk(model, bench.folder)
        if adapter:
            stir(model, bench.plan.value("seed"))

    trained = bench.train(prepare=prepare, look=_trained_logits, num_rows=2)
    batch, wanted_TV, base_TV = trained.seen
    with muted():
        run = bench.answering(trained.folder)
        model = run.model(trainable=False)
        kept_aside = hasattr(model, "peft_config")
        shares = [(" beside its base" if kept_aside else "", apart(logits(model, batch), wanted_TV))]
        del model
        if kept_aside:
            shares.append((" merged", apart(logits(_merged(bench, run, trained), batch), wanted_TV)))
    effect = apart(base_TV, wanted_TV) if base_TV is not None else None
    how = "loaded again" if not adapter else "merged" if not kept_aside else "loaded again"
    said = ", ".join(f"logits of the {'adapter' if adapter else 'model'}{where} {share:.1e}" for where, share in shares)
    said += " apart"
    if effect is not None:
        said += f"; without it they are {effect:.1e}"
        if effect <= bench.tolerance:
            return Outcome(None, f"the adapter changes nothing that could be compared ({effect:.1e})")
    worst = max(share for _, share in shares)
    return Outcome(worst <= bench.tolerance, f"{how}: {said}", f"{bench.tolerance:.0e}")


def stir(model: Any, seed: int) -> None:
    """Add noise to what learns, so that an adapter which begins as nothing can be seen."""
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad and weight.is_floating_point():
                noise = torch.randn(weight.shape, generator=dice) * STIRRED
                weight.add_(noise.to(weight.device, weight.dtype))


@torch.no_grad()
def logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(T, V), float32, on the CPU; tokens that an adapter puts in front are cut."""
    model.eval()
    placed = {name: one.to(model.device) for name, one in batch.items()}
    found_TV = model(**placed, use_cache=False).logits[0].float().cpu()
    return found_TV[-batch["input_ids"].shape[1] :]


def _trained_logits(trained: Trained) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor | None]:
    """A batch of one row, the logits of the model that was trained, and those without its adapter."""
    model = trained.run.model(trainable=True)
    if trained.trainer is not None:
        trained.trainer.show_result()
    model = getattr(model, "pretrained_model", model)
    batch = shown_batch(trained.run, trained.run.rows("train")[0], MOST_TOKENS)
    wanted_TV = logits(model, batch)
    if not hasattr(model, "disable_adapter"):
        return batch, wanted_TV, None
    with model.disable_adapter():
        return batch, wanted_TV, logits(model, batch)


def _merged(bench: Bench, run: Run, trained: Trained) -> Any:
    base = bench.answering(trained.folder, base=True).model(trainable=False)
    adapter = run.plan.one("adapter")
    if adapter is None:
        raise NotApplicable("no adapter takes part")
    return adapter.load()(run.dequantized(base), run, False)


def apart(found_TV: torch.Tensor, wanted_TV: torch.Tensor) -> float:
    """How far logits are apart, as a share."""
    if found_TV.shape != wanted_TV.shape:
        return float("inf")
    return float((found_TV - wanted_TV).norm() / wanted_TV.norm())
