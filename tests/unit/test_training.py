"""Training in two parts ends at the same bits as in one, and one that has stopped early does not go on."""

import pytest
import torch
from torch import Tensor

from dynamics import train as training
from dynamics.types import Params


def test_training_in_two_parts_ends_at_the_same_bits(tmp_path):
    target = torch.linspace(-1, 1, 12).view(3, 4)

    batches = []

    def loss(params: Params, rng: torch.Generator) -> Tensor:
        batches.append(torch.randn(3, 4, generator=rng))
        return (params["net.w"] - target + 0.1 * batches[-1]).square().sum()

    def validate(params: Params) -> float:
        return float((params["net.w"] - target).square().sum())

    config = training.TrainConfig(steps=40, lr=0.1, validate_every=5, save_every=10)
    start = training.fresh({"net.w": torch.zeros(3, 4)})
    whole = training.fit(loss, start, config, validate)
    assert validate(whole.params) < 0.1 * validate(start.params) and whole.step == 40
    assert len(torch.stack(batches).unique(dim=0)) == 40
    path = tmp_path / "state.safetensors"

    class Killed(Exception):
        pass

    def kill(p: training.Progress) -> None:
        if p.step == 27:
            raise Killed

    with pytest.raises(Killed):
        training.fit(loss, start, config, validate, path, kill)
    resumed = training.resume(path, config)
    assert resumed.step == 20
    finished = training.fit(loss, resumed, config, validate)
    for group, other in zip(whole[:3], finished[:3], strict=True):
        assert group.keys() == other.keys() and all(torch.equal(w, other[n]) for n, w in group.items())
    assert whole[3:] == finished[3:]


def test_training_stops_early_once(tmp_path):
    # A run that has stopped does not go on when it is resumed.
    config = training.TrainConfig(steps=100, lr=0.1, validate_every=1, patience=4)
    scores = iter([5.0, 4.0, 3.0, *[6.0] * 97])

    def loss(params: Params, rng: torch.Generator) -> Tensor:
        return params["net.w"].sum()

    stopped = training.fit(loss, training.fresh({"net.w": torch.zeros(2)}), config, lambda _: next(scores))
    assert stopped.step == 7 and stopped.best_loss == 3.0
    torch.testing.assert_close(stopped.best["net.w"], torch.full((2,), -0.3))  # Adam's steps are lr long here
    path = tmp_path / "state.safetensors"
    training.save(path, stopped, config)
    again = training.fit(loss, training.resume(path, config), config, lambda _: 0.0)
    assert again.step == 7 and again.best_loss == 3.0
    assert torch.equal(again.params["net.w"], stopped.params["net.w"])
