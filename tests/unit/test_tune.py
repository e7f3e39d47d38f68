"""How the gain filter's settings are chosen."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from controller import fitting
from controller.fitting import FitConfig, fit_adapter
from dynamics import checkpoint, data, tune
from dynamics.adapt.effectiveness import Effectiveness
from dynamics.data import DataError, Rows, held_out
from dynamics.mlp import MLP
from dynamics.train import ResumeError
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
    return Rows(*flat, episode, torch.zeros_like(episode), healthy, told[episode], held_out(conditions)[episode])


def chosen(rows: Rows, theta: Theta) -> dict:
    fitted, record = tune.tune_filter(MODEL, theta, rows, 0, lambda _: None, sequences=24, sweeps=1)
    assert record["validation"] < record["validation_before"]
    assert fitted.meta["effectiveness.gamma"].tolist() == pytest.approx(
        [record["gamma"]] * 8 + [record["body_gamma"]] * 4
    )
    assert fitted.meta["effectiveness.precision"].tolist() == [record["precision"]] * 8 + [record["body_precision"]] * 4
    return record


def test_a_body_that_changes_gets_a_weaker_prior_than_one_that_does_not_however_rare_it_is():
    theta = make_theta()
    never = chosen(recorded(theta, ["healthy", "leg:3"] * 16), theta)
    # One held-out episode in sixteen is of a short leg.
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
        tune.tune_filter(MODEL, theta, recorded(theta, ["healthy"] * 16, count=50), 0, lambda _: None)


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


class Killed(Exception):
    pass


@pytest.fixture
def config(tmp_path, monkeypatch) -> FitConfig:
    """Of a training of the filter that takes seconds."""
    theta = make_theta()
    r = recorded(theta, ["healthy"] * 16, count=70)
    s, a, s_next = (x.unflatten(0, (16, 70)) for x in (r.s, r.a, r.s_next))
    data.append(
        tmp_path / "data",
        s,
        a,
        s_next,
        r.episode.unflatten(0, (16, 70)),
        {"robot": "ant", "conditions": ["healthy"] * 16},
    )
    checkpoint.save(tmp_path / "init.safetensors", "ant", MODEL, theta, {})
    monkeypatch.setattr(fitting, "tune_filter", partial(tune.tune_filter, sequences=24, sweeps=1))
    return FitConfig(tmp_path / "data", tmp_path / "init.safetensors", tmp_path / "whole", "effectiveness")


def test_a_training_of_the_filter_that_is_cut_off_goes_on_to_the_same_settings(config, tmp_path, monkeypatch):
    def fit(out: Path, resume: bool = False, until: int = 99) -> int:
        """-> trials made."""
        made: list[int] = []
        replayed = tune._replayed

        def count(*args):
            made.append(1)
            return replayed(*args)

        def progress(what: str, done: int, total: int) -> None:
            if done == until:
                raise Killed

        with monkeypatch.context() as m:
            m.setattr(tune, "_replayed", count)
            try:
                fit_adapter(Ant(threads=1), replace(config, out=out, resume=resume), progress)
            except Killed:
                assert not (out / "model.safetensors").exists()
        return len(made)

    everything, cut = fit(tmp_path / "whole"), tmp_path / "cut"
    with pytest.raises(ResumeError, match="nothing to resume"):
        fit(cut, resume=True)
    assert fit(cut, until=1) > 0
    first = fit(cut, resume=True, until=9)
    assert 3 < first < everything
    rest = fit(cut, resume=True)
    assert 0 < rest <= everything - first + 1  # the trial before the cut was not written yet
    whole, ours = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", cut))
    assert whole.keys() == ours.keys() and all(torch.equal(x, ours[name]) for name, x in whole.items())
    assert list((cut / "tensorboard").glob("events*"))
    checkpoint.save(tmp_path / "init.safetensors", "ant", MODEL, make_theta()._replace(value={}), {"another": 1})
    with pytest.raises(ResumeError, match="init_sha256"):
        fit(cut, resume=True)
    (cut / "config.json").unlink()
    with pytest.raises(ResumeError, match=r"config\.init_sha256"):
        fit(cut, resume=True)
    with pytest.raises(ResumeError, match="seed 0, not 1"):
        fit_adapter(Ant(threads=1), replace(config, out=cut, resume=True, seed=1), lambda *_: None)
