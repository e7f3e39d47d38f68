"""How the gain filter's settings are chosen."""

import pytest
import torch

from dynamics import tune
from dynamics.adapt.effectiveness import Effectiveness
from dynamics.data import DataError, Rows
from dynamics.mlp import MLP
from dynamics.types import Phi, Theta
from robots.ant import Ant

MODEL = MLP(Ant.space, 16, 1, body=Ant.n_body)


def make_theta() -> Theta:
    rng = torch.Generator().manual_seed(0)
    net = MODEL.init(rng)
    net["W0"][:, -4:] = torch.randn(1, 4, 16, generator=rng)
    net["K"] *= 10
    norm = {"x_mean": torch.zeros(26), "x_std": torch.ones(26), "d_mean": torch.zeros(28), "d_std": torch.ones(28)}
    theta = Theta(net, norm, {"effectiveness.sigma": torch.full((28,), 0.3)})
    return theta._replace(meta=theta.meta | Effectiveness(MODEL).meta(theta))


def recorded(theta: Theta, conditions: list[str], count: int = 70, noise: float = 0.05) -> Rows:
    """One episode of each condition in the model's own world; a leg without torque has none, whatever training is told of it."""
    rng, b = torch.Generator().manual_seed(1), len(conditions)
    s = torch.zeros(b, count, 31)
    s[..., 3] = s[..., 8] = 1.0
    s[..., 9:] = 0.3 * torch.randn(b, count, 22, generator=rng)
    a = torch.rand(b, count, 8, generator=rng) * 2 - 1
    told = torch.tensor([Ant.tell(c) for c in conditions])
    dead = torch.tensor([[0.0] * 2 + [1.0] * 6 if c == "leg:3" else [1.0] * 8 for c in conditions])
    gain = torch.where(told.isfinite(), told, torch.cat((dead, torch.zeros(b, 4)), 1))
    delta = MODEL.predict(Phi(theta.net, theta.norm, gain), s, a).mean
    s_next = Ant.space.retract(s, delta + noise * torch.randn(delta.shape, generator=rng))
    episode = torch.arange(b * count) // count
    healthy = torch.tensor([c == "healthy" for c in conditions])[episode]
    flat = (x.flatten(0, 1) for x in (s, a, s_next))
    return Rows(*flat, episode, torch.zeros_like(episode), healthy, told[episode])


def chosen(rows: Rows, theta: Theta) -> dict:
    fitted, record = tune.tune_filter(MODEL, theta, rows, 0, lambda *_: None, sequences=24, sweeps=1)
    assert record["validation"] < record["validation_before"]
    assert fitted.meta["effectiveness.gamma"].tolist() == pytest.approx(
        [record["gamma"]] * 8 + [record["body_gamma"]] * 4
    )
    assert fitted.meta["effectiveness.precision"].tolist() == [record["precision"]] * 8 + [record["body_precision"]] * 4
    return record


def test_a_body_that_changes_gets_a_weaker_prior_than_one_that_does_not_however_rare_it_is():
    theta = make_theta()
    never = chosen(recorded(theta, ["healthy", "leg:3"] * 16), theta)
    # One held-out episode in five is of a short leg: every eighth is held out.
    often = chosen(recorded(theta, (["healthy"] * 39 + ["leg-short:1"]) * 3), theta)
    assert often["body_precision"] * often["inflation"] < never["body_precision"] * never["inflation"]
    assert chosen(recorded(theta, ["healthy", "leg:3"] * 16), theta) == never  # the same again


def test_every_kind_counts_the_same():
    error = torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    kind, everything = torch.tensor([0, 0, 1, 0, 0, 1]), torch.ones(6, dtype=torch.bool)
    score = tune._score(error, kind, everything, 3)
    assert score == pytest.approx((torch.tensor(1.5).log() + torch.tensor(3.0).log()).item() / 2)
    again = torch.tensor([0, 1, 2, 2, 2, 3, 4, 5, 5, 5])
    more = tune._score(error[again], kind[again], torch.ones(10, dtype=torch.bool), 5)
    assert more == pytest.approx(score)


def test_recordings_that_are_too_short_are_refused():
    theta = make_theta()
    with pytest.raises(DataError, match=r"64 transitions long"):
        tune.tune_filter(MODEL, theta, recorded(theta, ["healthy"] * 16, count=50), 0, lambda *_: None)


def test_of_precisions_that_predict_alike_the_largest_is_taken():
    theta = make_theta()
    # With healthy robots alone, all gains are 1: no prior is too stiff.
    assert chosen(recorded(theta, ["healthy"] * 32), theta)["precision"] == max(tune.GRID["precision"])


def test_the_difference_of_two_scores_and_its_spread():
    rng, kind = torch.Generator().manual_seed(0), torch.arange(80) % 2
    a = torch.rand(80, generator=rng) + 0.5
    assert (tune._difference(a, a, kind, 40, rng) == 0).all()
    constant = tune._difference(1.1 * a, a, kind, 40, rng)
    assert torch.allclose(constant, torch.tensor(1.1).log().expand(len(constant)), atol=1e-5)
    noisy = tune._difference(a * (1 + 0.5 * torch.randn(80, generator=rng)).abs(), a, kind, 40, rng)
    assert 0.01 < noisy.std() < 0.5
