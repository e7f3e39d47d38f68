"""NMPC against what is known: Riccati on a linear-quadratic problem, IPOPT on a nonlinear one; its Jacobians; its failures."""

from dataclasses import replace

import casadi
import numpy as np
import pytest
import torch
from torch import Tensor

from dynamics.nominal import Nominal
from planners.condense import QP, Expansion, compose
from planners.linearise import TorchTangent, from_predict, from_residual
from planners.nmpc import NMPC, solve_qp
from planners.symbolic import SymbolicTangent, expand_symbolic
from robots import symbolic
from robots.space import Euclidean
from robots.vehicle import load

DT, H = 0.2, 10
PLANE = Euclidean(2, 1)
START = np.array([[1.0, 0.0], [-0.5, 1.0], [2.0, -1.0]])
Q, R = np.array([1.0, 0.1]), 0.1


def planner(bound: float = 50.0, **settings) -> NMPC:
    limit = np.array([bound])
    base = NMPC(PLANE.retract, PLANE.local, 2, 2, -limit, limit, np.zeros(1), horizon=H, damping=0.0)
    return replace(base, **settings)


def integrator(s: Tensor, a: Tensor) -> Tensor:
    p, v, u = s[..., 0], s[..., 1], a[..., 0]
    return torch.stack((p + DT * v + DT**2 / 2 * u, v + DT * u), -1)


def pendulum(s, a, sin=torch.sin, join=lambda *x: torch.stack(x, -1)):
    """Semi-implicit, so that a step is nonlinear in the state. Angle from hanging [rad], rate [rad/s], torque."""
    angle, rate = s[..., 0], s[..., 1]
    rate = rate + DT * (a[..., 0] - 4.0 * sin(angle))
    return join(angle + DT * rate, rate)


def residual(s: Tensor, a: Tensor) -> Tensor:
    return torch.cat((s * torch.as_tensor(Q, dtype=s.dtype).sqrt(), a * R**0.5), -1)


COST = from_residual(residual, PLANE.retract, 2, 3)


def linear(model=integrator, n_delta: int = 2):
    return from_predict(model, PLANE.retract, PLANE.local, n_delta, torch.float64)


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


def test_actions_stay_within_bounds():
    nmpc = planner(low=np.array([0.2]), high=np.array([0.9]), start=np.array([0.5]))
    s, memory = 10 * START, nmpc.init(3)
    for _ in range(4):
        plan, memory = nmpc.solve(memory, linear(), s, COST)
        assert plan.valid.all()
        assert ((memory.actions >= 0.2) & (memory.actions <= 0.9)).all()
        low, high = np.float32(0.2), np.float32(0.9)
        assert ((plan.actions.numpy() >= low) & (plan.actions.numpy() <= high)).all()


def test_a_robots_plan_does_not_depend_on_its_batch_mates():
    nmpc, together = planner(2.0), planner(2.0).init(3)
    alone = [nmpc.init(1) for _ in range(3)]
    s = START.copy()
    for tick in range(4):
        if tick == 2:  # one starts again, its mates keep their warm start
            together.nodes[1], alone[1].nodes[0] = np.nan, np.nan
        plan, together = nmpc.solve(together, linear(pendulum), s, COST)
        for i in range(3):
            one, alone[i] = nmpc.solve(alone[i], linear(pendulum), s[i : i + 1], COST)
            np.testing.assert_allclose(together.actions[i], alone[i].actions[0], atol=1e-9)
            np.testing.assert_allclose(plan.cost[i], one.cost[0], rtol=1e-9)
        s = pendulum(torch.as_tensor(s), torch.as_tensor(together.actions[:, 0])).numpy()


@pytest.mark.parametrize("what", ["model", "cost", "state", "infinite model"])
def test_a_failed_solve_returns_the_last_plan_shifted_and_says_so(what):
    """Robot 1 fails, its mates do not notice."""
    nmpc = planner(2.0)
    _, memory = nmpc.solve(nmpc.init(3), linear(), START, COST)
    s = START.copy()
    one = torch.tensor([False, True, False])[:, None, None]

    def model(s: Tensor, a: Tensor) -> Tensor:
        return torch.where(one, torch.nan if what == "model" else torch.inf, integrator(s, a))

    def cost(states: np.ndarray, actions: np.ndarray) -> Expansion:
        parts = COST(states, actions)
        parts.value[1] = np.nan
        return parts

    if what == "state":
        s[1] = np.nan
    linearise = linear(model) if "model" in what else linear()
    plan, after = nmpc.solve(memory, linearise, s, cost if what == "cost" else COST)
    good, _ = nmpc.solve(memory, linear(), START, COST)
    assert plan.valid.tolist() == [True, False, True]
    assert plan.cost[1] == torch.inf and plan.cost[[0, 2]].isfinite().all()
    shifted = np.concatenate((memory.actions[1, 1:], memory.actions[1, -1:]))
    np.testing.assert_allclose(plan.actions[1], shifted, rtol=1e-6)
    np.testing.assert_allclose(plan.actions[[0, 2]], good.actions[[0, 2]], rtol=1e-6)
    assert np.isnan(after.nodes[1]).all() and np.isfinite(after.nodes[[0, 2]]).all()
    # Failing again shifts again; from the next sound tick on it plans as from the start.
    again, _ = nmpc.solve(after, linearise, s, cost if what == "cost" else COST)
    np.testing.assert_allclose(again.actions[1, 0], shifted[1], rtol=1e-6)
    sound, _ = nmpc.solve(after, linear(), START, COST)
    fresh, _ = nmpc.solve(nmpc.init(3), linear(), START, COST)
    assert sound.valid.all()
    np.testing.assert_allclose(sound.actions[1], fresh.actions[1], atol=1e-6)


def test_a_solver_that_gives_up_is_a_failed_solve(monkeypatch):
    nmpc = planner(2.0)
    _, memory = nmpc.solve(nmpc.init(3), linear(), START, COST)
    monkeypatch.setattr("planners.nmpc._Solver.of", lambda n: lambda *programme: (np.full(n, 0.1), False))
    plan, _ = nmpc.solve(memory, linear(), START, COST)
    assert not plan.valid.any() and plan.actions.isfinite().all()
    np.testing.assert_allclose(plan.actions[:, :-1], memory.actions[:, 1:], rtol=1e-6)


def test_a_programme_without_a_solution_is_reported():
    ok = QP(np.eye(2), np.array([1.0, -9.0]), np.zeros(()))
    u, solved = solve_qp(ok, -np.ones(2), np.ones(2))
    assert solved and u.tolist() == [-1, 1]
    _, solved = solve_qp(ok, np.ones(2), -np.ones(2))
    assert not solved
    _, solved = solve_qp(ok._replace(hessian=np.diag([-1.0, 1.0])), -np.ones(2), np.ones(2))  # not convex
    assert not solved
    u, solved = solve_qp(ok, -np.ones(2), np.ones(2))  # and the next is sound again
    assert solved and u.tolist() == [-1, 1]


def test_held_actions_are_a_model_with_longer_steps():
    def double(s: Tensor, a: Tensor) -> Tensor:
        return pendulum(pendulum(s, a), a)

    _, fine = converge(planner(2.0, horizon=5, hold=2), linear(pendulum), START)
    _, coarse = converge(planner(2.0, horizon=5), linear(double), START)
    np.testing.assert_allclose(fine.actions, coarse.actions, atol=1e-7)
    np.testing.assert_allclose(fine.nodes[:, ::2], coarse.nodes, atol=1e-7)


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


# The quadrotor's model, with rotations.


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
