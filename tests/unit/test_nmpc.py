"""NMPC against what is known: Riccati on a linear-quadratic problem, IPOPT on a nonlinear one; how near one step a tick comes."""

from dataclasses import replace

import casadi
import numpy as np
import pytest
import torch
from control_problem import COST, DT, START, H, Q, R, integrator, linear, pendulum, planner, residual
from torch import Tensor

from planners.condense import Expansion
from planners.nmpc import NMPC


def total(s: np.ndarray, actions: np.ndarray, model=integrator) -> np.ndarray:
    x, sum_ = torch.as_tensor(s), torch.zeros(len(s), dtype=torch.float64)
    for a in torch.as_tensor(actions).unbind(1):
        x = model(x, a)
        sum_ = sum_ + residual(x, a).square().sum(-1)
    return sum_.numpy()


def riccati(horizon: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.array([[1, DT], [0, 1]]), np.array([[DT**2 / 2], [DT]])
    p, k = np.zeros((2, 2)), np.zeros((1, 2))
    for _ in range(horizon):
        w = np.diag(Q) + p
        k = np.linalg.solve(R + b.T @ w @ b, b.T @ w @ a)
        p = a.T @ w @ (a - b @ k)
    return p, k


def test_one_step_is_the_linear_quadratic_regulator():
    p, k = riccati(H)
    plan, memory = planner(cold=1).solve(planner().init(3), linear(), START, COST)
    np.testing.assert_allclose(memory.actions[:, 0], -START @ k.T, atol=1e-9)
    np.testing.assert_allclose(plan.cost.numpy(), np.einsum("bi,ij,bj->b", START, p, START), rtol=1e-9)
    np.testing.assert_allclose(total(START, memory.actions), plan.cost.numpy(), rtol=1e-9)
    # The nodes are where the model goes.
    s = torch.as_tensor(START)
    for i, a in enumerate(torch.as_tensor(memory.actions).unbind(1)):
        np.testing.assert_allclose(memory.nodes[:, i], s, atol=1e-9)
        s = integrator(s, a)


def test_the_receding_horizon_is_the_regulator_too():
    _, k = riccati(H)
    s, memory = START, planner().init(3)
    for _ in range(10):
        _, memory = planner().solve(memory, linear(), s, COST)
        np.testing.assert_allclose(memory.actions[:, 0], -s @ k.T, atol=1e-9)
        s = integrator(torch.as_tensor(s), torch.as_tensor(memory.actions[:, 0])).numpy()


def converge(nmpc: NMPC, linearise, s: np.ndarray, cost=COST, steps: int = 40):
    still = replace(nmpc, shift=0.0)
    memory = still.init(len(s))
    plan = None
    for _ in range(steps):
        plan, memory = still.solve(memory, linearise, s, cost)
    assert plan is not None and plan.valid.all()
    return plan, memory


def ipopt(s: np.ndarray, bound: float) -> np.ndarray:
    """(2,) -> (h, 1), by single shooting in CasADi."""
    u, x, price = casadi.MX.sym("u", H), casadi.MX(s), 0
    for k in range(H):
        rate = x[1] + DT * (u[k] - 4.0 * casadi.sin(x[0]))
        x = casadi.vertcat(x[0] + DT * rate, rate)
        price = price + Q[0] * x[0] ** 2 + Q[1] * x[1] ** 2 + R * u[k] ** 2
    options = {"print_time": False, "ipopt": {"print_level": 0, "tol": 1e-12}}
    solver = casadi.nlpsol("reference", "ipopt", {"x": u, "f": price}, options)
    return np.asarray(solver(x0=np.zeros(H), lbx=-bound, ubx=bound)["x"])


@pytest.mark.parametrize("bound", [50.0, 1.5])
def test_after_convergence_it_is_what_ipopt_finds(bound):
    plan, memory = converge(planner(bound), linear(pendulum), START)
    for s, actions in zip(START, memory.actions, strict=True):
        np.testing.assert_allclose(actions, ipopt(s, bound), atol=1e-5)
    np.testing.assert_allclose(total(START, memory.actions, pendulum), plan.cost.numpy(), rtol=1e-6)
    if bound < 2:
        assert (np.abs(memory.actions) == bound).any()


def test_a_warm_start_converges_while_the_problem_moves():
    """One step a tick, on a pendulum that moves, comes to the plan that many steps would reach; without a warm start it does not."""
    nmpc = planner(3.0, cold=1)
    s, memory, off = START, nmpc.init(3), []
    for _ in range(8):
        _, memory = nmpc.solve(memory, linear(pendulum), s, COST)
        _, best = converge(planner(3.0), linear(pendulum), s)
        _, unwarmed = nmpc.solve(nmpc.init(3), linear(pendulum), s, COST)
        off.append([np.abs(m.actions[:, 0] - best.actions[:, 0]).max() for m in (memory, unwarmed)])
        s = pendulum(torch.as_tensor(s), torch.as_tensor(memory.actions[:, 0])).numpy()
    warm, unwarmed = np.array(off).T
    assert warm[3:].max() < 1e-2 < unwarmed[0]
    assert warm[1:4].max() < 0.3 * unwarmed[1:4].max()


def test_a_state_is_embedded_in_what_was_prepared():
    """On a linear model to rounding, wherever the first node was expected; on a nonlinear one to first order, and beyond `reach` expanded anew."""
    targets = np.random.default_rng(0).normal(size=(3, H, 3))
    for model in (integrator, pendulum):
        nmpc = planner(3.0)
        _, memory = nmpc.solve(nmpc.init(3), linear(model), START, COST, targets)
        s = START + 0.01
        _, exact = nmpc.solve(memory, linear(model), s, COST, targets, nmpc.prepare(memory, linear(model), COST, s))
        off = []
        for size in (0.2, 0.1):
            away = nmpc.prepare(memory, linear(model), COST, s + size)
            _, embedded = nmpc.solve(memory, linear(model), s, COST, targets, away)
            np.testing.assert_allclose(embedded.nodes[:, 0], s, atol=1e-12)
            off.append(np.abs(embedded.actions - exact.actions).max())
            _, anew = replace(nmpc, reach=0.05).solve(memory, linear(model), s, COST, targets, away)
            np.testing.assert_allclose(anew.actions, exact.actions, atol=1e-9)
        if model is integrator:
            assert max(off) < 1e-9
        else:
            assert off[1] < 0.35 * off[0] < 0.1


def test_what_is_prepared_needs_no_target():
    targets, s = np.random.default_rng(0).normal(size=(3, H, 3)), START + 0.05

    def aimed(states: np.ndarray, actions: np.ndarray) -> Expansion:
        parts = COST(states, actions)
        return parts._replace(value=parts.value - targets)

    nmpc = planner(2.0)
    _, memory = nmpc.solve(nmpc.init(3), linear(pendulum), START, COST)
    plan, after = nmpc.solve(memory, linear(pendulum), s, aimed)
    same, got = nmpc.solve(memory, linear(pendulum), s, COST, targets, nmpc.prepare(memory, linear(pendulum), COST))
    np.testing.assert_allclose(got.actions, after.actions, atol=1e-9)
    np.testing.assert_allclose(same.cost, plan.cost, rtol=1e-9)


def test_a_step_is_damped_where_the_last_one_left_gaps():
    """Not at all on a linear model, whose gaps a step closes; the more, the larger they are."""
    for model, size in ((integrator, 0.0), (pendulum, 0.1), (pendulum, 1.0)):
        nmpc = planner(3.0, shift=0.0)
        _, memory = nmpc.solve(nmpc.init(3), linear(model), START, COST)
        rng = np.random.default_rng(0)
        memory = memory._replace(nodes=memory.nodes + size * rng.normal(size=memory.nodes.shape))
        steps = []
        for mistrust in (0.0, 1.0, 100.0):
            _, after = replace(nmpc, mistrust=mistrust).solve(memory, linear(model), START, COST)
            steps.append(np.linalg.norm(after.actions - memory.actions, axis=(1, 2)))
        if size:
            assert (steps[1] < steps[0]).all() and (steps[2] < 0.5 * steps[0]).all()
        else:
            np.testing.assert_allclose(steps, 0.0, atol=1e-7)


def test_held_actions_are_a_model_with_longer_steps():
    def double(s: Tensor, a: Tensor) -> Tensor:
        return pendulum(pendulum(s, a), a)

    _, fine = converge(planner(2.0, horizon=5, hold=2), linear(pendulum), START)
    _, coarse = converge(planner(2.0, horizon=5), linear(double), START)
    np.testing.assert_allclose(fine.actions, coarse.actions, atol=1e-7)
    np.testing.assert_allclose(fine.nodes[:, ::2], coarse.nodes, atol=1e-7)
