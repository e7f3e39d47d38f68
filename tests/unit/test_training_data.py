"""What training is told of a recording."""

import numpy as np
import pytest
import torch

from controller.collect import steady
from controller.config import ControllerConfig, assemble
from controller.ros.subjects import AntSubject, Change
from dynamics import checkpoint, data
from dynamics.adapt.effectiveness import Effectiveness, episode_gains
from dynamics.adapt.gradient import INNER_STEPS, GrBAL
from dynamics.mlp import MLP
from dynamics.types import Phi, Theta
from robots.ant import Ant
from robots.condition import ConditionError, parse


def test_a_short_episode_is_explained_by_all_of_it_and_a_long_one_by_both_its_ends():
    """A motor gain of 0.5 that shows in one single transition of the episode only is found wherever that is, where the episode is short."""
    model = MLP(Ant.space, 16, 1)
    rng = torch.Generator().manual_seed(0)
    norm = {"x_mean": torch.zeros(26), "x_std": torch.ones(26), "d_mean": torch.zeros(28), "d_std": torch.ones(28)}
    theta = Theta(model.init(rng), norm, {"effectiveness.sigma": torch.full((28,), 0.05)})
    theta = theta._replace(meta=theta.meta | Effectiveness(model).meta(theta))
    counts = (16, 30, 48, 67)
    n = sum(counts)
    s = torch.zeros(n, 31)
    s[:, 3] = s[:, 8] = 1.0
    s[:, 9:] = 0.3 * torch.randn(n, 22, generator=rng)
    rows = {
        "s": s,
        "a": torch.rand(n, 8, generator=rng) * 2 - 1,
        "s_next": s + 0.05 * torch.randn(n, 31, generator=rng),
    }
    episode = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    known = {"episode": episode, "told": torch.full((n, 8), torch.nan)}
    everything = data.Rows(**{f: (rows | known).get(f, torch.zeros(n)) for f in data.Rows._fields})
    ones = torch.ones(len(counts), 8)

    def explain(r: data.Rows, per_episode: int) -> torch.Tensor:
        return episode_gains(model, theta, r, torch.arange(len(counts)), ones, per_episode)

    found, whole = explain(everything, 48), explain(everything, 67)
    torch.testing.assert_close(found[:3], whole[:3])  # nothing of them is left out by asking for fewer
    for e, first in enumerate((0, 16, 46)):
        for row in (first, first + counts[e] - 1):
            other = everything._replace(a=everything.a.clone())
            other.a[row] *= -1
            assert not torch.allclose(explain(other, 48)[e], found[e]), (e, row)


def test_what_a_recording_tells_is_held_and_the_rest_is_found():
    model = MLP(Ant.space, 16, 1, body=Ant.n_body)
    rng = torch.Generator().manual_seed(0)
    norm = {"x_mean": torch.zeros(26), "x_std": torch.ones(26), "d_mean": torch.zeros(28), "d_std": torch.ones(28)}
    net = model.init(rng)
    net["W0"][:, -4:] = torch.randn(1, 4, 16, generator=rng)
    net["K"] *= 10
    theta = Theta(net, norm, {"effectiveness.sigma": torch.full((28,), 0.05)})
    theta = theta._replace(meta=theta.meta | Effectiveness(model).meta(theta))
    theta.meta["effectiveness.precision"] = torch.full((12,), 0.02)
    conditions = ("healthy", "leg:1", "leg-short:2", "weak:0.5:0", "")
    true = torch.ones(5, 12)
    true[:, 8:] = 0
    true[1, [4, 5]] = true[2, [6, 7]] = 0.0
    true[2, 10], true[3, [2, 3]], true[4, 11] = 1.0, 0.5, 0.7
    n, count = 5 * 60, 60
    s = torch.zeros(n, 31)
    s[:, 3] = s[:, 8] = 1.0
    s[:, 9:] = 0.3 * torch.randn(n, 22, generator=rng)
    a, episode = torch.rand(n, 8, generator=rng) * 2 - 1, torch.arange(n) // count
    delta = model.predict(Phi(net, norm, true), s.view(5, count, -1), a.view(5, count, -1)).mean.flatten(0, 1)
    told = torch.tensor([Ant.tell(c) for c in conditions])
    assert told.isfinite().sum(1).tolist() == [12, 4, 12, 4, 0]
    rows = data.Rows(
        s, a, Ant.space.retract(s, delta), episode, torch.zeros(n).long(), episode == 0, told[episode], episode < 0
    )  # fmt: skip
    found = model.neutral.expand(5, -1)
    for _ in range(10):  # as round after round explains anew: a step is as long as residuals of 3 sigma make it
        found = episode_gains(model, theta, rows, torch.arange(5), found)
    for e in range(5):
        known = told[e].isfinite()
        assert torch.equal(found[e, known], told[e, known])
        assert torch.equal(told[e, known], true[e, known])
    torch.testing.assert_close(found, true, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    "condition, motors, legs",
    [
        ("leg-short:3@20", (), (0, 1, 2)),
        ("leg-short:3+healthy@20", (), (0, 1, 2)),
        ("leg-short:3+leg-short:1@20", (0, 1, 2, 3, 6, 7), (0, 2, 3)),
        ("leg-short:3+leg:0@20", (0, 1, 4, 5, 6, 7), (0, 1, 2, 3)),
        ("leg:3@20", (), (0, 1, 2, 3)),
    ],
)
def test_of_a_recording_whose_condition_changes_only_what_does_not_is_told(condition, motors, legs, tmp_path):
    told = Ant.tell(condition)
    assert tuple(np.isfinite(told).nonzero()[0]) == (*motors, *(8 + leg for leg in legs))
    assert all(told[i] == Ant.tell("leg-short:3")[i] for i in motors)
    assert [told[8 + leg] for leg in legs] == [float(leg == 3 and bool(motors)) for leg in legs]
    columns = (torch.zeros(1, 9, n) for n in (31, 8, 31))
    meta = {"robot": "ant", "conditions": [condition], "recording": "a bag"}
    data.append(tmp_path, *columns, torch.zeros(1, 9), meta)
    rows = data.load(tmp_path, "ant", 31, 8, Ant.tell)  # as `collect --from-bag` writes them
    assert torch.equal(rows.told.nan_to_num(nan=9), torch.tensor(told).expand(9, -1).nan_to_num(nan=9))


def test_of_a_recording_it_is_told_when_its_condition_was_set():
    def told(*changes: tuple[int, str]) -> str:
        stamps = range(1000, 6000, 50)
        (text,) = AntSubject().conditions([Change(stamp, condition, 0) for stamp, condition in changes], stamps)
        return text

    assert told((0, "leg:3@30")) == "leg:3@30" == told((0, "leg:3@30"), (2500, "leg:3@30"))
    text = told((0, "leg-short:3"), (2490, "leg:0+mass:2@9"), (4000, "leg-short:3"))
    for step, condition in ((0, "leg-short:3"), (29, "leg-short:3"), (30, "leg:0"), (38, "leg:0"), (39, "leg:0+mass:2"),
                            (59, "leg:0+mass:2"), (60, "leg-short:3")):  # fmt: skip
        assert parse(text).at(step) == parse(condition).at(0)


@pytest.mark.parametrize("condition", ["leg:3@10", "healthy+leg:3@10", "leg:0+healthy@5"])
def test_a_recording_has_one_condition(condition):
    with pytest.raises(ConditionError, match=r"without @STEP"):
        steady(condition)
    assert steady("leg:3").gain != steady("healthy").gain


@pytest.mark.parametrize("steps", [1, 5])
def test_grbal_takes_as_many_inner_steps_as_its_rates_were_trained_for(tmp_path, steps):
    model = MLP(Ant.space, 8, 1)
    norm = {"x_mean": torch.zeros(26), "x_std": torch.ones(26), "d_mean": torch.zeros(28), "d_std": torch.ones(28)}
    theta = Theta(model.init(torch.Generator().manual_seed(0)), norm, {})
    meta = GrBAL(model).meta(theta) | {INNER_STEPS: torch.tensor(float(steps))}
    checkpoint.save(tmp_path / "g.safetensors", "ant", model, theta._replace(meta=meta), {})
    loaded = checkpoint.load(tmp_path / "g.safetensors", "ant", Ant.space)
    adapter = assemble(Ant(threads=1), ControllerConfig(adapter="grbal"), loaded).adapter
    assert isinstance(adapter, GrBAL) and adapter.steps == steps
