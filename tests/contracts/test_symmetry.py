"""Laws of the ant's symmetries: a group, and one that the true physics obey."""

import numpy as np
import pytest
import torch
from torch import Tensor

from robots.ant import Ant
from robots.condition import HEALTHY, parse
from robots.symmetry import Symmetry, ant

GROUP = ant()
B, STEPS = 6, 40  # robots, steps


def image(g: Symmetry, s: Tensor) -> Tensor:
    """(*b, 31) float64 -> the state of the turned or mirrored robot. Features leave out x, y and heading; heading turns as
    any vector in body coordinates does, and x and y do not matter."""
    x = torch.cat((s[..., 2:3], s[..., 6:]), -1) @ g.features.double().T
    f = s[..., 3:6] @ g.features[1:4, 1:4].double().T
    return torch.cat((s[..., :2], x[..., :1], f, x[..., 1:]), -1)


def step(robot: Ant, s: Tensor, a: Tensor, conditions: list) -> Tensor:
    """One control period from states of one's own: (n, 31), (n, 8) -> (n, 31), float64."""
    raw = robot.physics.join(*robot.space.to_mujoco(s.numpy()))
    return torch.as_tensor(robot.observe(robot.physics.run(raw, a.numpy()[:, None], conditions)[:, 0]))


@pytest.fixture(scope="module")
def robot() -> Ant:
    return Ant(threads=1)


@pytest.fixture(scope="module")
def recorded(robot: Ant) -> tuple[Tensor, Tensor]:
    """States (n, 31) of a walk with falls and contacts of every kind, and actions (n, 8), float64."""
    rng = np.random.default_rng(0)
    start = robot.reset([HEALTHY] * B, range(B))
    slow = np.repeat(rng.uniform(-1, 1, (B, STEPS // 4, 8)), 4, axis=1)
    states = np.concatenate((start[:, None], robot.rollout(slow)), 1)[:, :-1]
    return torch.as_tensor(states).flatten(0, 1), torch.as_tensor(rng.uniform(-1, 1, (B * STEPS, 8)))


def permuted(g: Symmetry, gain: tuple[float, ...]) -> tuple[float, ...]:
    """The gains of the image of a robot: motors move, and a gain knows no sign of direction."""
    return tuple((g.action.abs().double() @ torch.tensor(gain, dtype=torch.float64)).tolist())


@pytest.mark.parametrize("g", GROUP)
def test_what_a_task_depends_on_turns_with_the_body(g, robot, recorded):
    s = recorded[0]
    expected = robot.space.directed(s) @ g.directed.double().T
    assert torch.equal(robot.space.directed(image(g, s)), expected)
    assert (robot.cost(s, s, s) == robot.cost(image(g, s), s, image(g, s))).all()


@pytest.mark.parametrize(
    "condition", ["healthy", "leg:0", "weak:0.3:1+reverse:5", "leg-short:2", "leg-short:0+leg-short:3+weak:0.5:1"]
)
@pytest.mark.parametrize("index", range(8))
def test_the_physics_do_not_change(index, condition, robot, recorded):
    g, broken, (s, a) = GROUP[index], parse(condition).at(0), recorded
    s_next = step(robot, s, a, [broken] * len(s))
    shortness = g.body @ torch.tensor([float(leg in broken.short) for leg in range(4)])
    other = type(broken)(permuted(g, broken.gain), frozenset(shortness.nonzero()[:, 0].tolist()))
    s_image = image(g, s)
    s_image_next = step(robot, s_image, a @ g.action.double().T, [other] * len(s))
    expected = robot.space.local(s, s_next) @ g.delta.double().T
    torch.testing.assert_close(robot.space.local(s_image, s_image_next), expected, atol=1e-9, rtol=0)


def test_the_image_of_a_broken_leg_is_another_broken_leg():
    legs = [parse(f"leg:{leg}").at(0).gain for leg in range(4)]
    for g in GROUP:
        assert sorted(permuted(g, gain) for gain in legs) == sorted(legs)
    assert permuted(GROUP[4], legs[0]) == legs[3]  # the mirror image, as robots/symmetry.py has it
    assert [permuted(GROUP[1], gain) for gain in legs] == [legs[1], legs[2], legs[3], legs[0]]


def test_they_are_signed_permutations():
    for matrix in (m for g in GROUP for m in g):
        assert ((matrix == 0) | (matrix.abs() == 1)).all()
        assert (matrix.abs().sum(0) == 1).all() and (matrix.abs().sum(1) == 1).all()


def number(g: Symmetry) -> int:
    return next(i for i, other in enumerate(GROUP) if all(torch.equal(x, y) for x, y in zip(g, other, strict=True)))


def test_they_are_a_group():
    table = [[number(g.then(h)) for h in GROUP] for g in GROUP]  # raises where one leads outside
    assert table[0] == list(range(8)) == [row[0] for row in table]  # the first is the identity
    assert all(sorted(row) == list(range(8)) for row in table)  # so all are different, and each has an inverse
    assert number(GROUP[1].then(GROUP[4])) != number(GROUP[4].then(GROUP[1]))  # D4, which does not commute
    orders = [next(n for n in range(1, 9) if number(power(g, n)) == 0) for g in GROUP]
    assert orders == [1, 4, 2, 4, 2, 2, 2, 2]


def power(g: Symmetry, n: int) -> Symmetry:
    out = GROUP[0]
    for _ in range(n):
        out = out.then(g)
    return out


def test_the_group_acts_on_states_and_deltas_alike(robot, recorded):
    # retract commutes with the group: the image of where one went is where the image went, but for x, y.
    s, rng = recorded[0], torch.Generator().manual_seed(0)
    delta = torch.randn(len(s), 28, generator=rng, dtype=torch.float64)
    for g in GROUP:
        one = image(g, robot.space.retract(s, delta))
        other = robot.space.retract(image(g, s), delta @ g.delta.double().T)
        torch.testing.assert_close(one[:, 2:], other[:, 2:], atol=1e-12, rtol=0)
