"""Expansions of models and costs, those of the quadrotor with its rotations too: torch, CasADi and finite differences agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from control_problem import PLANE, H
from torch import Tensor

from dynamics.nominal import Nominal
from planners.condense import Expansion, compose
from planners.linearise import TorchTangent, from_predict, from_residual
from planners.nmpc import NMPC
from planners.symbolic import SymbolicTangent, expand_symbolic
from robots import symbolic
from robots.vehicle import load


def test_composed_steps_are_the_steps_in_a_row():
    rng = np.random.default_rng(0)
    steps = Expansion(rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6, 3, 3)), rng.normal(size=(2, 6, 3, 1)))
    whole = compose(steps, 3)
    x, u = rng.normal(size=(2, 3)), rng.normal(size=(2, 1))
    expected = x
    for k in range(3):
        c, a, b = (part[:, k] for part in steps)
        expected = c + (a @ expected[..., None] + b @ u[..., None])[..., 0]
    got = whole.value[:, 0] + (whole.by_state[:, 0] @ x[..., None] + whole.by_action[:, 0] @ u[..., None])[..., 0]
    np.testing.assert_allclose(got, expected)


def flights(slung: bool, b: int = 2, n: int = 4, seed: int = 0):
    """-> space, model, nodes (b, n + 1, s), actions (b, n, 4): the model's own path, disturbed, so that there are gaps."""
    model = Nominal(load("1kg"), slung)
    space, rng = model.space, torch.Generator().manual_seed(seed)
    s = torch.zeros(b, space.n_state, dtype=torch.float64)
    s[:, 3], s[:, 8], s[:, 15] = 1, 1, 9.81
    if slung:
        s[:, 18] = -0.6
    s = space.retract(s, 0.3 * torch.randn(b, space.n_delta, generator=rng, dtype=torch.float64))
    actions = 0.5 * torch.randn(b, n, 4, generator=rng, dtype=torch.float64)
    nodes = [s]
    for a in actions.unbind(1):
        s = space.retract(model.predict(s, a, 0.2), 0.1 * torch.randn(b, space.n_delta, generator=rng, dtype=s.dtype))
        nodes.append(s)
    return space, model, torch.stack(nodes, 1), actions


@pytest.mark.parametrize("slung", [False, True])
def test_jacobians_agree_with_finite_differences_and_with_casadi(slung):
    space, model, nodes, actions = flights(slung)

    def predict(s: Tensor, a: Tensor) -> Tensor:
        return model.predict(s, a, 0.2)

    got = from_predict(predict, space.retract, space.local, space.n_delta, torch.float64)(
        nodes.numpy(), actions.numpy()
    )

    def gap(x: Tensor, u: Tensor) -> Tensor:
        return space.local(nodes[:, 1:], predict(space.retract(nodes[:, :-1], x), actions + u))

    x, u = torch.zeros(2, 4, space.n_delta, dtype=torch.float64), torch.zeros(2, 4, 4, dtype=torch.float64)
    np.testing.assert_allclose(got.value, gap(x, u), atol=1e-9)
    for i in range(space.n_delta + 4):
        step = torch.zeros(space.n_delta + 4, dtype=torch.float64)
        step[i] = 1e-6
        dx, du = step[:-4].expand_as(x), step[-4:].expand_as(u)
        slope = (gap(dx, du) - gap(-dx, -du)) / 2e-6
        column = got.by_state[..., i] if i < space.n_delta else got.by_action[..., i - space.n_delta]
        np.testing.assert_allclose(column, slope, atol=1e-5)

    f = model.symbolic()
    expansion = expand_symbolic(
        lambda s, a, target: symbolic.local(target, f(s, a, 0.2)), symbolic.retract, space.n_state, space.n_delta, 4,
        space.n_state,
    )  # fmt: skip
    flat = [t.numpy().reshape(8, -1) for t in (nodes[:, :-1], actions, nodes[:, 1:])]
    for theirs, ours in zip(expansion(*flat), got, strict=True):
        np.testing.assert_allclose(theirs.reshape(ours.shape), ours, atol=1e-6)


def test_jacobians_are_those_of_vmap_jacrev():
    space, model, nodes, actions = flights(False)
    got = from_predict(model.predict, space.retract, space.local, space.n_delta, torch.float64)(
        nodes.numpy(), actions.numpy()
    )

    def gap(x, u, s, a, s_next):
        return space.local(s_next, model.predict(space.retract(s, x), a + u))

    flat = [t.flatten(0, 1) for t in (nodes[:, :-1], actions, nodes[:, 1:])]
    zero = torch.zeros(8, space.n_delta, dtype=torch.float64), torch.zeros(8, 4, dtype=torch.float64)
    by_state, by_action = torch.func.vmap(torch.func.jacrev(gap, (0, 1)))(*zero, *flat)
    np.testing.assert_allclose(got.by_state.reshape(by_state.shape), by_state, atol=1e-9)
    np.testing.assert_allclose(got.by_action.reshape(by_action.shape), by_action, atol=1e-9)


def test_residuals_may_differ_along_the_horizon():
    wanted = torch.arange(H, dtype=torch.float64)[:, None]
    cost = from_residual(lambda s, a: s[..., :1] * a + wanted, PLANE.retract, 2, 1)
    states, actions = np.random.default_rng(0).normal(size=(3, H, 2)), np.random.default_rng(1).normal(size=(3, H, 1))
    got = cost(states, actions)
    np.testing.assert_allclose(got.value, states[..., :1] * actions + wanted.numpy())
    np.testing.assert_allclose(got.by_state[..., 0, :], np.concatenate((actions, 0 * actions), -1))
    np.testing.assert_allclose(got.by_action[..., 0], states[..., :1])


@pytest.mark.parametrize("slung", [False, True])
def test_symbolic_tangent_maps_are_the_numeric_ones(slung):
    space, _, nodes, _ = flights(slung)
    tangent = SymbolicTangent(symbolic.retract, symbolic.local, space.n_state, space.n_delta)
    numeric = TorchTangent(space.retract, space.local)
    s, s_next = nodes[:, :-1].numpy(), nodes[:, 1:].numpy()
    delta = tangent.local(s, s_next)
    np.testing.assert_allclose(delta, numeric.local(s, s_next), atol=1e-9)
    np.testing.assert_allclose(tangent.retract(s, delta), s_next, atol=1e-9)
    np.testing.assert_allclose(tangent.retract(s, delta), numeric.retract(s, delta), atol=1e-9)


def test_the_protocol_of_planners_flies_the_same_from_torch_as_from_casadi():
    """`plan` through a torch predict against `solve` on CasADi, from hover 0.3 m off, at the model's own precision."""
    vehicle = replace(load("1kg"), control_rate_hz=20.0)
    model, space = Nominal(vehicle), Nominal(vehicle).space
    hover = vehicle.action(np.array([vehicle.hover_thrust_n, 0, 0, 0]))
    nmpc = NMPC(space.retract, space.local, 16, 13, -np.ones(4), np.ones(4), hover, horizon=8)
    s = torch.zeros(1, 16)
    s[:, :3], s[:, 3], s[:, 8], s[:, 15] = 0.3, 1, 1, vehicle.hover_thrust_n
    scale = torch.tensor([10.0] * 3 + [0.0] * 6 + [2.0] * 3 + [0.3] * 3 + [0.0])

    def price(s: Tensor, a: Tensor) -> Tensor:
        return torch.cat((s * scale.to(s.dtype), a - torch.as_tensor(hover, dtype=a.dtype)), -1)

    cost = from_residual(price, space.retract, 13, 20)
    f = model.symbolic()
    gap = expand_symbolic(lambda s, a, t: symbolic.local(t, f(s, a, 0)), symbolic.retract, 16, 13, 4, 16)

    def linearise(nodes: np.ndarray, actions: np.ndarray) -> Expansion:
        return Expansion(*(x[None] for x in gap(nodes[0, :-1], actions[0], nodes[0, 1:])))

    def predict(s: Tensor, a: Tensor) -> Tensor:
        return model.predict(s, a)

    memory, other = nmpc.init(1), nmpc.init(1)
    for _ in range(3):
        plan, memory = nmpc.plan(memory, predict, s, cost)
        same, other = nmpc.solve(other, linearise, s.double().numpy(), cost)
        assert plan.valid.all() and plan.actions.shape == (1, 8, 4)
        torch.testing.assert_close(plan.actions, same.actions, atol=1e-3, rtol=0)
        s = predict(s, plan.actions[:, 0])
