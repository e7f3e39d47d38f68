"""What a round of learning gathers: robots that run on from the round before, and rest where they must."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from controller.collect import on_policy
from controller.config import ControllerConfig, PlannerConfig, UsageError, make_controller
from controller.learn import LearnConfig, carried, learn
from dynamics import checkpoint, data, scalar, value
from dynamics.train import TrainConfig, rate
from dynamics.value import ValueConfig
from robots.ant import Ant
from robots.condition import parse


def _shard(folder, s_next):
    b, t = s_next.shape[:2]
    data.append(
        folder, torch.tensor(s_next), torch.zeros(b, t, 8), torch.tensor(s_next), torch.zeros(b, t),
        {"robot": "ant", "conditions": ["healthy"] * b},
    )  # fmt: skip


@pytest.fixture
def running():
    """Eight ants in motion, the last two on their backs. (8, 31)"""
    ant = Ant()
    ant.reset([parse("healthy").at(0)] * 8, range(8))
    rng = np.random.default_rng(0)
    s = ant.rollout(np.clip(rng.standard_normal((8, 20, 8)), -1, 1))[:, -1]
    s[:, :2] += 100.0
    s[6:, 3:9] = [1, 0, 0, 0, 0, -1]
    return s


def test_robots_go_on_where_they_were_unless_they_lie_or_it_is_their_turn_to_rest(tmp_path, running):
    _shard(tmp_path, running[:, None])
    start = carried(Ant(), tmp_path, LearnConfig(carry=4, kick=(0.0, 0.0)))
    resting = np.isnan(start).all(1)
    assert resting.nonzero()[0].tolist() == [3, 6, 7]  # (i + 1 shard) % 4 == 0, and the fallen
    assert np.allclose(start[~resting, 2:], running[~resting, 2:], atol=1e-6)
    assert np.all(start[~resting, :2] == 0)
    _shard(tmp_path, running[:, None])
    assert np.isnan(carried(Ant(), tmp_path, LearnConfig(carry=4, kick=(0.0, 0.0)))).all(1).nonzero()[0].tolist() == [
        2,
        6,
        7,
    ]
    assert np.isnan(carried(Ant(), tmp_path, LearnConfig(carry=1, kick=(0.0, 0.0)))).all()


def test_a_shard_begins_where_it_was_told_to(tmp_path, running):
    ant = Ant()
    config = ControllerConfig(planner=PlannerConfig(samples=20, horizon=2, iterations=1))
    start = running[:3].copy()
    start[1] = np.nan
    on_policy(ant, make_controller(ant, config), tmp_path, ["healthy"] * 3, 2, seed=5, start=start)
    first = data.load(tmp_path, "ant", 31, 8).s[::2].numpy()
    assert np.allclose(first[[0, 2]], start[[0, 2]], atol=1e-4)
    assert abs(first[1, 0]) < 0.2 and 0.6 < first[1, 2] < 0.9  # a standing ant


def test_placing_robots_is_the_inverse_of_observing_them(running):
    ant, other = Ant(), Ant()
    for robot in (ant, other):
        robot.reset([parse("healthy").at(0)] * 3, [7, 8, 9])
    s = other.place(np.array([0, 2]), running[:2])
    assert np.allclose(s[[0, 2]], running[:2], atol=1e-12)
    assert np.array_equal(s[1], ant.state()[1])


def test_the_learning_rate_holds_then_falls_in_a_line():
    config = TrainConfig(decay_from=0.5, decay_to=0.1)
    assert [rate(x, config) for x in (0.0, 0.3, 0.5)] == [1.0, 1.0, 1.0]
    assert rate(0.75, config) == pytest.approx(0.55)
    assert rate(1.0, config) == pytest.approx(0.1)
    assert rate(1.0, TrainConfig(decay_from=1.0)) == 1.0


def test_a_value_comes_with_its_round_and_a_specialist_takes_the_damage_for_itself(tmp_path):
    small = PlannerConfig(samples=16, horizon=2, iterations=1)
    config = LearnConfig(
        conditions=("leg:3",), rounds=2, robots=8, steps=6, gains=False, value_from=1, early=PlannerConfig(samples=17, horizon=3, iterations=1),
        width=16, depth=1, batch=16, train=TrainConfig(steps=3), value=ValueConfig(width=8, sweeps=1, steps=2),
        controller=ControllerConfig(adapter="effectiveness", planner=small),
    )  # fmt: skip
    ant = Ant()
    learn(ant, config, tmp_path / "specialist", lambda _: None)
    learn(ant, replace(config, gains=True), tmp_path, lambda _: None)
    rounds = [checkpoint.load(tmp_path / f"round-{r:03d}.safetensors", ant.name, ant.space).theta for r in range(3)]
    assert [bool(theta.value) for theta in rounds] == [False, True, True]
    ones, gains = (load_file(out / "gains-002.safetensors")["gains"] for out in (tmp_path / "specialist", tmp_path))
    neutral = torch.tensor([1.0] * 8 + [0.0] * 4)
    assert torch.equal(ones, neutral.expand(len(gains), -1)) and not torch.equal(ones, gains)
    assert (gains[:, 8:] == 0).all()  # a recording of a leg without torque says that it is whole


def test_the_last_rounds_value_alone_is_a_mean_and_of_whole_robots(tmp_path, monkeypatch):
    asked, fit = [], value.fit

    def watched(space, rows, cost, symmetries, config, rng, members):
        asked.append((bool(rows.healthy.all()), members))
        return fit(space, rows, cost, symmetries, config, rng, members)

    monkeypatch.setattr(value, "fit", watched)
    monkeypatch.setattr(scalar, "DISTIL_STEPS", 3)
    config = LearnConfig(
        conditions=("healthy", "leg:0"), rounds=2, robots=8, steps=6, value_from=1, whole=True, members=3, width=8, depth=1, batch=16,
        train=TrainConfig(steps=3), value=ValueConfig(width=8, sweeps=1, steps=2), early=PlannerConfig(samples=16, horizon=2, iterations=1),
        controller=ControllerConfig(adapter="effectiveness", planner=PlannerConfig(samples=16, horizon=2, iterations=1)),
    )  # fmt: skip
    learn(Ant(), config, tmp_path, lambda _: None)
    assert asked == [(False, 1), (True, 3)]
    with pytest.raises(UsageError, match="members"):
        learn(Ant(), replace(config, members=0), tmp_path / "none", lambda _: None)


def test_conditions_change_when_they_were_told_to(tmp_path):
    config = LearnConfig(
        conditions=("healthy",), later=("leg:0", "leg-short:1"), later_from=1, rounds=2, robots=8, steps=6, value_from=9, width=8, depth=1, batch=16,
        train=TrainConfig(steps=3), early=PlannerConfig(samples=16, horizon=2, iterations=1),
    )  # fmt: skip
    learn(Ant(), config, tmp_path, lambda _: None)
    told = [data.read_shard(path, "ant", 31, 8)[1]["conditions"] for path in data.shards(tmp_path / "data")]
    assert told == [["healthy"] * 8, ["healthy"] * 8, ["leg:0", "leg-short:1"] * 4]
    gains = load_file(tmp_path / "gains-002.safetensors")["gains"]
    assert gains[-7:][::2].tolist() == [Ant.tell("leg-short:1")] * 4


def test_robots_are_not_disturbed_before_there_is_a_value(tmp_path, running):
    for count in (1, 2):
        _shard(tmp_path, running[:, None])
        start = carried(Ant(), tmp_path, LearnConfig(carry=100, value_from=1))
        moving = np.isfinite(start).all(1)
        same = np.allclose(start[moving, 2:], running[moving, 2:], atol=1e-6)
        assert moving.sum() >= 5
        assert same == (count == 1)
