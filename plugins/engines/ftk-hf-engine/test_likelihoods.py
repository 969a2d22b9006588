"""Log-probabilities of what follows, against one forward pass for each row and a sum written with a loop."""

import pytest
import torch
from ftk import DataError
from ftk.opening import open_run

READ, OTHER = [3, 5, 8, 13, 21], [40, 41]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def run(request):
    return open_run("chat", None, ["--model_name_or_path", f"ftk://random/{request.param}", "--template", "chatml"])


def by_hand(model, read, follows):
    found = []
    for number, token in enumerate(follows):
        with torch.no_grad():
            scores = model(torch.tensor([[*read, *follows[:number]]])).logits[0, -1].log_softmax(-1)
        found.append((scores[token].item(), scores.argmax().item() == token))
    return found


def test_they_are_those_of_each_row_alone(run):
    engine, model = run.engine(), run.model(trainable=False)
    best = by_hand(model, OTHER, [0])
    likeliest = int(model(torch.tensor([OTHER])).logits[0, -1].argmax())
    asked = [(READ, [7]), (READ, [9]), (OTHER, [likeliest, 5, 6]), (READ, [7, 30]), (tuple(OTHER), (1,))]
    found = engine.likelihoods(asked)
    for (read, follows), told in zip(asked, found, strict=True):
        wanted = by_hand(model, read, follows)
        assert [value for value, _ in told] == pytest.approx([value for value, _ in wanted], abs=1e-5)
        assert [greedy for _, greedy in told] == [greedy for _, greedy in wanted]
    assert found[2][0][1]
    assert best[0][0] < found[2][0][0]
    assert engine.likelihoods([]) == []


def test_what_is_read_once_is_a_row_once(run, monkeypatch):
    engine, model, seen = run.engine(), run.model(trainable=False), []
    forward = type(model).forward

    def watched(self, *args, **kwargs):
        seen.append(tuple(kwargs["input_ids"].shape))
        return forward(self, *args, **kwargs)

    watched.__signature__ = __import__("inspect").signature(forward)
    monkeypatch.setattr(type(model), "forward", watched)
    engine.likelihoods([(READ, [token]) for token in range(4)])
    assert seen == [(1, len(READ))]


def test_nothing_and_too_much_are_refused(run):
    for asked in (([], [1]), ([1], [])):
        with pytest.raises(DataError, match="at least one"):
            run.engine().likelihoods([asked])
    with pytest.raises(DataError, match="but the model reads"):
        run.engine().likelihoods([([1] * 9999, [1])])
