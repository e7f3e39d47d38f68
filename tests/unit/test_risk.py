"""The chance of a fall: its labels by their definition, its fit against chances that are known, what a plan pays for it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from controller.config import UsageError, running_cost
from dynamics import risk, scalar
from dynamics.data import Rows
from dynamics.risk import RiskConfig
from dynamics.types import Theta
from robots.ant import Ant
from robots.space import Euclidean
from robots.symmetry import ant

SPACE = Euclidean(1, 1)
SMALL = RiskConfig(within=1, width=24, steps=600, batch=256, lr=3e-3)


def rows(s: Tensor, s_next: Tensor, episode: Tensor, healthy: bool = True) -> Rows:
    n = len(s)
    return Rows(
        s, torch.zeros(n, 1), s_next, episode, torch.zeros(n).long(), torch.full((n,), healthy), torch.ones(n, 1),
        torch.zeros(n) > 0,
    )  # fmt: skip


def tipped(s: Tensor) -> Tensor:
    return s[..., 0] > 10


@pytest.mark.parametrize("within", [1, 3, 7])
def test_what_lies_ahead_is_what_the_definition_says(within):
    rng = torch.Generator().manual_seed(within)
    episode = torch.arange(30).repeat_interleave(torch.randint(1, 9, (30,), generator=rng))
    fell = torch.rand(len(episode), generator=rng) < 0.15
    falls, known = risk.ahead(fell, episode, within)
    for i in range(len(episode)):
        window = [j for j in range(i, min(i + within, len(episode))) if episode[j] == episode[i]]
        assert bool(falls[i]) == any(fell[j] for j in window), i
        assert bool(known[i]) == (bool(falls[i]) or len(window) == within), i


def jumps(n: int, seed: int) -> Rows:
    """From x in [-1, 1] one step leads to a fall with chance 0.04 (1 + x)."""
    rng = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(n, 1, generator=rng) - 1
    fell = torch.rand(n, 1, generator=rng) < 0.04 * (1 + x)
    return rows(x, torch.where(fell, 20.0, 0.0), torch.arange(n))


def test_the_chance_of_a_rare_fall_is_found_as_a_chance():
    net = risk.fit(SPACE, jumps(60000, 0), tipped, (), SMALL, torch.Generator().manual_seed(1))
    x = torch.linspace(-0.9, 0.9, 19)[:, None]
    got = risk.chance(SPACE, net)(x)
    torch.testing.assert_close(got, 0.04 * (1 + x[:, 0]), atol=0.02, rtol=0.25)


def test_without_a_fall_or_without_a_robot_that_stands_there_is_nothing_to_learn():
    standing, lying = torch.zeros(40, 1), torch.full((40, 1), 20.0)
    for s, s_next in ((standing, standing), (lying, lying), (standing, lying)):
        assert (
            risk.fit(SPACE, rows(s, s_next, torch.arange(40)), tipped, (), SMALL, torch.Generator().manual_seed(0))
            == {}
        )


def test_states_that_already_lie_teach_nothing():
    recorded = jumps(4000, 2)
    lying = torch.full((4000, 1), 20.0)
    more = Rows(*(torch.cat(x) for x in zip(recorded, rows(lying, lying, 4000 + torch.arange(4000)), strict=True)))
    one, other = (
        risk.fit(SPACE, r, tipped, (), replace(SMALL, steps=20), torch.Generator().manual_seed(1))
        for r in (recorded, more)
    )
    assert torch.equal(one["b2"].isfinite(), torch.tensor([True]))
    # Odds of the recordings count standing robots alone: the network differs (its normaliser saw others), the base rate does not.
    base = risk.chance(SPACE, one)(torch.zeros(1, 1)) / risk.chance(SPACE, other)(torch.zeros(1, 1))
    assert 0.3 < float(base) < 3.0


def test_on_a_healthy_robot_all_images_of_a_state_are_one():
    robot = Ant()
    rng = torch.Generator().manual_seed(0)
    s = torch.randn(3000, 31, generator=rng)
    s_next = s.clone()
    s_next[:, 8] = torch.where(s[:, 9] > 1, -1.0, 1.0)  # what one hip does decides
    s[:, 8] = 1.0
    data = rows(s, s_next, torch.arange(3000))._replace(a=torch.zeros(3000, 8))
    spread = {}
    for name, symmetries in (("with", ant()), ("without", ())):
        net = risk.fit(robot.space, data, robot.tipped, symmetries, SMALL, torch.Generator().manual_seed(1))
        x = s[:200]
        images = torch.stack(
            [scalar.apply(net, robot.space.directed(x) @ g.directed.T) for g in ant()]  # the logit
        )
        spread[name] = float(images.std(0).mean() / images.std())
    assert spread["with"] < 0.75 * spread["without"]


def test_a_plan_pays_the_price_times_the_chance_at_every_step():
    robot = Ant()
    s = torch.randn(2, 3, 31, generator=torch.Generator().manual_seed(0))
    net = scalar.init(robot.space.directed(s).reshape(6, -1), 5, torch.Generator().manual_seed(1))
    theta = Theta({}, {}, {}, {}, net)
    s_next = s + 0.1
    paid = running_cost(robot, theta, 7.0)(s, s[..., :8], s_next) - robot.cost(s, s[..., :8], s_next)
    due = risk.chance(robot.space, net)(s_next)
    lies = robot.tipped(s_next)
    assert lies.any() and not lies.all()
    torch.testing.assert_close(paid[~lies], 7.0 * due[~lies], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(paid[lies], torch.full_like(paid[lies], 7.0), atol=1e-4, rtol=1e-4)
    assert running_cost(robot, theta, 0.0) is robot.cost
    assert running_cost(robot, theta._replace(risk={}), 7.0) is robot.cost


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_that_is_none_is_refused(price):
    with pytest.raises(UsageError, match=r"fall price is .*; valid: a finite number, 0 or more"):
        running_cost(Ant(), Theta({}, {}, {}), price)
