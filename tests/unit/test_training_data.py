"""What training is told of a recording."""

import pytest
import torch

from controller.collect import steady
from controller.config import ControllerConfig, assemble
from dynamics import checkpoint, data
from dynamics.adapt.effectiveness import Effectiveness, episode_gains
from dynamics.adapt.gradient import INNER_STEPS, GrBAL
from dynamics.mlp import MLP
from dynamics.types import Theta
from robots.ant import Ant
from robots.condition import ConditionError


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
    known = {"episode": episode, "healthy": torch.zeros(n, dtype=torch.bool)}
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
