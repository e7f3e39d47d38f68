"""The value behind the horizon: its returns by their definition, its fit against costs-to-go that are known."""

import pytest
import torch
from torch import Tensor

from dynamics import scalar, value
from dynamics.data import Rows
from dynamics.value import ValueConfig
from robots.ant import Ant
from robots.space import Euclidean
from robots.symmetry import ant

SPACE = Euclidean(1, 1)
GAMMA = 0.9


def rows(s: Tensor, s_next: Tensor, episode: Tensor, healthy: bool = True, shard: Tensor | None = None) -> Rows:
    n = len(s)
    return Rows(
        s,
        torch.zeros(n, 1),
        s_next,
        episode,
        torch.zeros(n).long() if shard is None else shard,
        torch.full((n,), healthy),
        torch.ones(n, 1),
        torch.zeros(n) > 0,
    )


@pytest.mark.parametrize("trace", [0.0, 0.4, 1.0])
def test_returns_are_those_of_their_definition(trace):
    rng = torch.Generator().manual_seed(0)
    cost, after = torch.randn(12, generator=rng), torch.randn(12, generator=rng)
    episode = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 2, 3, 3, 3])
    got = value.returns(cost, after, episode, GAMMA, trace)
    expected = torch.empty(12)
    for t in reversed(range(12)):
        last = t == 11 or episode[t + 1] != episode[t]
        ahead = after[t] if last else (1 - trace) * after[t] + trace * expected[t + 1]
        expected[t] = cost[t] + GAMMA * ahead
    torch.testing.assert_close(got, expected)


def decaying(seed: int, n: int = 400, steps: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """x' = 0.9 x from x in [-2, 2]: with cost x^2, V(x) = x^2 / (1 - 0.81 gamma)."""
    x = 4 * torch.rand(n, 1, generator=torch.Generator().manual_seed(seed)) - 2
    x = x * 0.9 ** torch.arange(steps + 1)
    return x[:, :-1].reshape(-1, 1), x[:, 1:].reshape(-1, 1), torch.arange(n).repeat_interleave(steps)


@pytest.mark.parametrize("trace", [0.0, 0.5])
def test_a_known_cost_to_go_is_found(trace):
    config = ValueConfig(gamma=GAMMA, trace=trace, width=32, sweeps=25, steps=60, lr=3e-3)
    got = value.fit(
        SPACE, rows(*decaying(0)), lambda s, a, s_next: s[:, 0] ** 2, (), config, torch.Generator().manual_seed(1)
    )
    x = torch.linspace(-1.8, 1.8, 21)[None, :, None]
    behind = value.terminal(SPACE, got)
    assert behind is not None
    torch.testing.assert_close(behind(x)[0], x[0, :, 0] ** 2 / (1 - 0.81 * GAMMA), atol=0.5, rtol=0.1)


def test_a_fit_is_its_seeds_alone():
    config = ValueConfig(width=8, sweeps=2, steps=5)
    one, same, other = (
        value.fit(SPACE, rows(*decaying(0)), lambda s, a, n: s[:, 0], (), config, torch.Generator().manual_seed(i))
        for i in (1, 1, 2)
    )
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not torch.equal(one["W0"], other["W0"])


def test_the_newest_shards_alone_count():
    """Ten shards, of which the old ones cost 100 a step."""
    s, s_next, episode = decaying(0)
    shard = torch.arange(len(s)) * 10 // len(s)
    config = ValueConfig(gamma=0.5, newest=0.4, width=16, sweeps=10, steps=40, lr=3e-3)
    old = rows(s, s_next, episode, shard=shard)._replace(a=(shard < 4).float()[:, None])
    got = value.fit(SPACE, old, lambda s, a, n: 1 + 99 * a[:, 0], (), config, torch.Generator().manual_seed(0))
    assert (value.apply(got, s[:50]) - 2.0).abs().max() < 0.3


@pytest.mark.parametrize("healthy", [True, False])
def test_images_of_the_healthy_robot_cost_the_same_and_those_of_a_broken_one_are_not_seen(healthy):
    robot = Ant(threads=1)
    rng = torch.Generator().manual_seed(0)
    s = torch.randn(512, 31, generator=rng)
    known = torch.full((512,), healthy), torch.ones(512, 8), torch.zeros(512) > 0
    data = Rows(s, torch.zeros(512, 8), s, torch.arange(512), torch.zeros(512).long(), *known)
    config = ValueConfig(
        gamma=0.0, width=64, sweeps=1, steps=300
    )  # V is the cost itself, which is what leg 0's hip says
    got = value.fit(robot.space, data, lambda s, a, n: 5 * s[:, 9], ant(), config, rng)
    x = robot.space.directed(s)
    one = value.apply(got, x)
    spread = torch.stack([value.apply(got, x @ g.directed.T) for g in ant()]).std(0).mean()
    # Which of eight images was seen cannot be told, so a healthy robot's cost is their mean, near 0; a broken one's stays its own.
    found = torch.corrcoef(torch.stack((one, 5 * s[:, 9])))[0, 1]
    assert (found < 0.7 and spread < 2) if healthy else (found > 0.95 and spread > 4)


def test_means_of_fits_differ_less_than_fits():
    """What a step costs is drawn anew each time: what a fit learns of that beside the mean depends on its seed."""
    s, s_next, episode = decaying(0)
    noisy = rows(s, s_next, episode)._replace(a=10 * torch.randn(len(s), 1, generator=torch.Generator().manual_seed(3)))
    config = ValueConfig(gamma=0.5, trace=0.0, width=64, sweeps=4, steps=100, lr=3e-3)

    def apart(members: int) -> float:
        one, other = (
            value.fit(
                SPACE, noisy, lambda s, a, n: 1 + a[:, 0], (), config, torch.Generator().manual_seed(seed), members
            )
            for seed in (1, 2)
        )
        return float((value.apply(one, s) - value.apply(other, s)).square().mean().sqrt())

    assert apart(8) < 0.6 * apart(1)


def test_one_network_holds_the_mean_of_several_and_one_alone_is_itself():
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    nets = [scalar.init(x, 16, torch.Generator().manual_seed(i)) for i in range(3)]
    rng, none = torch.Generator().manual_seed(9), torch.zeros(500, dtype=torch.bool)
    got = scalar.distilled(nets, x, scalar.images((), 3), none, rng)
    mean = torch.stack([scalar.apply(net, x) for net in nets]).mean(0)
    assert (scalar.apply(got, x) - mean).square().mean().sqrt() < 0.1 * mean.std()
    assert got["W0"].shape == (3, 16) and not got["W0"].requires_grad
    assert scalar.distilled(nets[:1], x, scalar.images((), 3), none, rng) is nets[0]


def test_nothing_learned_is_no_cost():
    assert value.terminal(SPACE, {}) is None
