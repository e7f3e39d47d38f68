"""The motion that turns a robot over: when it acts, what it does, which files are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from controller import righting
from controller.config import WEIGHTS, ControllerConfig, PlannerConfig, make_controller
from controller.guard import EVENTS, RIGHT
from controller.righting import LYING, RISEN, Gait, Righting
from controller.run import Fleet
from dynamics.checkpoint import CheckpointError
from robots.ant import Ant

SHIPPED = WEIGHTS / "ant-righting.json"
GAIT = Gait(torch.tensor(1.0), torch.full((2,), 0.5), torch.tensor([0.0, 0.25]), torch.tensor([0.0, 0.25]))
SWAP = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])


def make(after: int = 3, turn: int = 5) -> Righting:
    return Righting(GAIT, torch.stack((torch.eye(2), SWAP)), lambda s: s[..., 0], dt=0.125, after=after, turn=turn)


def run(motion: Righting, up: list[float], gain: torch.Tensor | None = None) -> tuple[list[bool], list[torch.Tensor]]:
    lain, rights, actions = torch.zeros(1, dtype=torch.int64), [], []
    for u in up:
        lain, action = motion.step(lain, torch.tensor([[u]]), gain)
        rights.append(bool(motion.rights(lain)))
        actions.append(action[0])
    return rights, actions


def test_it_acts_once_a_robot_has_lain_long_enough_and_until_it_stands():
    between = (LYING + RISEN) / 2
    up = [1.0, 0.0, 0.0, 0.0, 0.0, between, between, RISEN + 0.1, between, 0.0]
    assert run(make(), up)[0] == [False] * 4 + [True] * 3 + [False] * 3


def test_a_robot_that_rocks_back_starts_counting_again():
    assert not any(run(make(), [0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0])[0])


def test_the_gait_begins_at_its_beginning_and_goes_through_the_symmetries():
    rights, actions = run(make(), [0.0] * 15)
    made = [a for a, yes in zip(actions, rights, strict=True) if yes]
    expected = [GAIT.action(torch.tensor(i * 0.125)) for i in range(12)]
    for i, (a, e) in enumerate(zip(made, expected, strict=True)):
        torch.testing.assert_close(a, SWAP @ e if 5 <= i < 10 else e)


def test_a_motor_that_turns_the_wrong_way_is_told_the_opposite():
    for known in ([[-0.7, 0.3]], [[-0.7, 0.3, -1.0, 0.0]]):  # the second with parameters of the body
        plain, turned = (run(make(), [0.0] * 8, gain)[1] for gain in (None, torch.tensor(known)))
        for a, b in zip(plain, turned, strict=True):
            torch.testing.assert_close(b, a * torch.tensor([-1.0, 1.0]))


def test_what_is_saved_is_loaded(tmp_path):
    x = np.concatenate(([0.3], np.linspace(-1, 1, 24)))
    righting.save(tmp_path / "r.json", "ant", righting.gait(x), {})
    for a, b in zip(righting.load(tmp_path / "r.json", Ant(threads=1)).gait, righting.gait(x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"robot": "cheetah"}, "'cheetah'"),
        ({"frequency": 0.0}, "frequency 0 Hz"),
        ({"frequency": 11.0}, "frequency 11 Hz"),
        ({"phase": [0.0] * 7}, "8 finite numbers"),
        ({"offset": [float("nan")] * 8}, "8 finite numbers"),
        ({"amplitude": "much"}, "not a righting motion"),
    ],
)
def test_a_motion_that_cannot_be_used_is_refused(tmp_path, change, named):
    content = json.loads(SHIPPED.read_text())
    for key, value in change.items():
        content["robot" if key == "robot" else "gait"] = value if key == "robot" else content["gait"] | {key: value}
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=named):
        righting.load(tmp_path / "r.json", Ant(threads=1))
    for text in ("", "[]", "\xff"):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(CheckpointError, match="not a righting motion"):
            righting.load(tmp_path / "r.json", Ant(threads=1))


def test_a_search_can_be_made_again(tmp_path):
    config = righting.SearchConfig(rounds=2, scouts=5, candidates=4, elites=2, starts=2, steps=10)
    a, b = (righting.search(Ant(threads=1), config, lambda _: None)[0] for _ in range(2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, righting.search(Ant(threads=1), replace(config, seed=1), lambda _: None)[0])


def test_robots_are_laid_on_their_backs():
    s = righting.lie(Ant(threads=1), 6, np.random.default_rng(0))
    assert (Ant.upright(s) < -0.5).all() and (s[:, 2] < 0.6).all()


def test_an_ant_on_its_back_gets_up():
    """By the shipped motion; the planner, which is a poor one here, goes on where it stands."""
    b, ant = 6, Ant(threads=1)
    quick = ControllerConfig(righting=True, planner=PlannerConfig(samples=16, horizon=2, iterations=1))
    s = righting.lie(ant, b, np.random.default_rng(1))
    fleet = Fleet(make_controller(ant, quick), list(range(b)), threads=1)
    stood, events = np.zeros(b, bool), []
    for _ in range(240):
        action, (d,) = fleet.step(s)
        events.append(d.event)
        s = ant.step(action)
        stood |= Ant.upright(s) > RISEN
    fleet.close()
    assert stood.sum() >= 5
    assert not (np.array(events[:20]) == RIGHT).any() and (events[20] == RIGHT).all() and EVENTS[RIGHT] == "right"
