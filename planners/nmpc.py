"""Nonlinear model predictive control by Gauss-Newton steps, one a tick (real-time iteration: Diehl, Bock, Schloeder 2005).

Direct multiple shooting (Bock, Plitt 1984): the plan is nodes s_0 .. s_n and actions, the model need not lead from one node to the
next. A tick makes one step on

    minimise sum_k |r(s_{k+1}, a_k) - t_k|^2    so that s_{k+1} = f(s_k, a_k),  low <= a <= high

with model and residual to first order (planners.linearise): a quadratic programme, condensed to the actions (planners.condense). It has two
phases. `prepare` needs no new state: it takes the last plan, shifted, expands and condenses. `solve` then embeds the measured state s as the
deviation local(s_0, s) of the first node, sets the target t, and solves.
The warm start is what makes one step enough: from tick to tick the problem hardly changes.

CasADi's daqp (Arnstroem, Bemporad, Axehill 2022) solves it, an active-set method that is exact and on dense programmes of this size the fastest
of those that CasADi carries.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import casadi
import numpy as np
import torch
from torch import Tensor

from planners.condense import QP, Condensed, Expansion, Response, compose, condense, respond
from planners.linearise import LeastSquares, Linearise, Local, Retract, Tangent, TorchTangent, from_predict
from planners.planner import Plan, Predict


class Memory(NamedTuple):
    """The warm start: the last plan, not yet shifted. nodes are NaN before the first tick and after a failure."""

    nodes: np.ndarray  # (b, n + 1, s)
    actions: np.ndarray  # (b, h, a)


class Prepared(NamedTuple):
    """A tick's programme, but for the measured state and the target."""

    nodes: np.ndarray  # (b, n + 1, s) where model and residual are expanded
    actions: np.ndarray  # (b, h, a)
    fine: Response  # of every step of the model
    qp: Condensed
    ok: np.ndarray  # (b,) bool: all of it is finite


@dataclass(frozen=True)
class NMPC:
    """Settings. An action is held for `hold` steps of the model, so the plan reaches horizon * hold steps ahead. shift: control periods
    over steps of the model, where the model's step is the longer one; 1 where they are equal.

    retract, local   the state space's, in torch
    tangent          the same maps in numpy, where there are faster ones than torch's
    low, high        (a,) bounds of the actions
    start            (a,) the action that a plan starts from where there is none before
    damping          of every step, per unit of action squared (Levenberg)
    mistrust         more of it, in proportion to the squared gaps between nodes and model, which a step that kept to where the model is linear has
                     closed (cf. Yamashita, Fukushima 2001, On the rate of convergence of the Levenberg-Marquardt method)
    cold             Gauss-Newton steps on the first tick
    reach            (d,) how far from the first node, by coordinate, a measured state is embedded in what was prepared; beyond, model and
                     residual are expanded again, at that state
    """

    retract: Retract
    local: Local
    n_state: int
    n_delta: int
    low: np.ndarray
    high: np.ndarray
    start: np.ndarray
    horizon: int = 20
    hold: int = 1
    shift: float = 1.0
    damping: float = 1e-6
    mistrust: float = 0.0
    cold: int = 5
    tangent: Tangent | None = None
    reach: np.ndarray | float = np.inf

    @property
    def _tangent(self) -> Tangent:
        return self.tangent or TorchTangent(self.retract, self.local)

    def init(self, b: int) -> Memory:
        nodes = np.full((b, self.horizon * self.hold + 1, self.n_state), np.nan)
        return Memory(nodes, np.tile(self.start.astype(float), (b, self.horizon, 1)))

    def plan(
        self, memory: Memory, predict: Predict, s: Tensor, cost: LeastSquares, rngs: Sequence[torch.Generator] = ()
    ) -> tuple[Plan, Memory]:
        """As planners.planner.Planner, but that the cost is a LeastSquares of the horizon's h knots (the reference along them, if it
        has one, is in there) and nothing is drawn."""
        return self.solve(
            memory, from_predict(predict, self.retract, self.local, self.n_delta), s.double().numpy(), cost
        )

    def prepare(
        self, memory: Memory, linearise: Linearise, cost: LeastSquares, first: np.ndarray | None = None
    ) -> Prepared:
        """The preparation phase. first (b, s): where the next measured state is expected, by default where the last plan, shifted, has it."""
        nodes, actions = self._shift(memory, _cold(memory))
        if first is not None:
            nodes[:, 0] = first
        return self._expand(linearise, cost, nodes, actions)

    def solve(
        self, memory: Memory, linearise: Linearise, s: np.ndarray, cost: LeastSquares, target: np.ndarray | None = None,
        prepared: Prepared | None = None,
    ) -> tuple[Plan, Memory]:  # fmt: skip
        """s (b, s) -> plan, memory: the feedback phase, after `prepare` where that was not done. target (b, h, m) is subtracted from the
        cost's residuals. A robot whose step fails (a model, cost or state that is not finite, a solver that gives up) gets its last plan,
        shifted, with valid False and an infinite cost; its next tick starts from rest nodes again."""
        cold = _cold(memory)
        prepared = self.prepare(memory, linearise, cost) if prepared is None else prepared
        start = self._tangent.local(prepared.nodes[:, :1], s[:, None])[:, 0]
        step = self._feedback(prepared, start, target)
        far = ~cold & (np.abs(start) > self.reach).any(1)
        if cold.any() or far.any():
            anew = self._anew(prepared, cold, linearise, s, cost, target)
            step = Step(*(np.where(_like(cold | far, x), x, y) for x, y in zip(anew, step, strict=True)))
        nodes, actions, value, ok = step
        actions = np.where(_like(ok, actions), actions, prepared.actions)
        plan = Plan(
            torch.tensor(actions, dtype=torch.float32),  # a copy: callers may write into a plan
            torch.as_tensor(np.where(ok, value, np.inf)),
            torch.as_tensor(ok),
        )
        return plan, Memory(np.where(_like(ok, nodes), nodes, np.nan), actions)

    def _anew(
        self, prepared: Prepared, cold: np.ndarray, linearise: Linearise, s: np.ndarray, cost: LeastSquares, target: np.ndarray | None
    ) -> "Step":  # fmt: skip
        """Expanded at s. A robot with a warm start makes one step, whoever shares its batch."""
        nodes = np.where(cold[:, None, None], s[:, None], prepared.nodes)
        nodes[:, 0] = s
        step = Step(nodes, prepared.actions, np.full(len(s), np.inf), np.ones(len(s), bool))
        for i in range(self.cold if cold.any() else 1):
            at = self._expand(linearise, cost, step.nodes, step.actions)
            new = self._feedback(at, np.zeros((len(s), self.n_delta)), target)
            move = step.ok & (cold | (i == 0))
            ok = np.where(move, new.ok, step.ok)
            nodes, actions, value = (
                np.where(_like(move & ok, x), x, y) for x, y in zip(new[:3], step[:3], strict=True)
            )
            step = Step(nodes, actions, value, ok)
        return step

    def _expand(self, linearise: Linearise, cost: LeastSquares, nodes: np.ndarray, actions: np.ndarray) -> Prepared:
        fine = linearise(nodes, actions.repeat(self.hold, 1))
        residual = cost(nodes[:, self.hold :: self.hold], actions)
        ok = fine.finite() & residual.finite()
        if not ok.all():
            fine, residual = (Expansion(*(np.where(_like(ok, x), x, 0.0) for x in e)) for e in (fine, residual))
        response = respond(compose(fine, self.hold))
        qp = condense(response, residual, self.damping + self.mistrust * (fine.value**2).sum((1, 2)))
        return Prepared(nodes, actions, response if self.hold == 1 else _held(fine, self.hold), qp, ok)

    def _feedback(self, prepared: Prepared, start: np.ndarray, target: np.ndarray | None) -> "Step":
        """One full Gauss-Newton step, from `start` (b, d) off the first node."""
        nodes, actions, fine, condensed, ok = prepared
        ok = ok & np.isfinite(start).all(1)
        start = start if ok.all() else np.where(ok[:, None], start, 0.0)
        qp = condensed.at(start, target)
        ok &= np.isfinite(qp.gradient).all(1)
        moved = np.zeros_like(qp.gradient)
        for i in np.flatnonzero(ok):
            low, high = (self.low - actions[i]).ravel(), (self.high - actions[i]).ravel()
            moved[i], ok[i] = solve_qp(QP(*(x[i] for x in qp)), low, high)
        value = qp.value(moved)
        nodes = self._tangent.retract(nodes, fine.at(start, moved))
        actions = np.clip(actions + moved.reshape(actions.shape), self.low, self.high)
        return Step(nodes, actions, value, ok & np.isfinite(nodes).all((1, 2)))

    def _shift(self, memory: Memory, cold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The last plan, one control period on."""
        nodes, actions = memory
        following = np.concatenate((nodes[:, 1:], nodes[:, -1:]), 1)
        if self.shift < 1 and not cold.all():
            following = self._tangent.retract(nodes, self.shift * self._tangent.local(nodes, following))
        share = self.shift / self.hold
        return following, actions + share * (np.concatenate((actions[:, 1:], actions[:, -1:]), 1) - actions)


class Step(NamedTuple):
    nodes: np.ndarray  # (b, n + 1, s)
    actions: np.ndarray  # (b, h, a)
    value: np.ndarray  # (b,) what the quadratic model expects the plan to cost
    ok: np.ndarray  # (b,) bool


def solve_qp(qp: QP, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, bool]:
    """One robot's programme within low <= u <= high -> u, and whether it is solved; zeros where it is not."""
    u, success = _Solver.of(len(low))(qp, low, high)
    ok = success and bool(np.isfinite(u).all())
    return (np.clip(u, low, high) if ok else np.zeros(len(low))), ok


class _Solver:
    """daqp for n variables, reading and writing numpy's memory: through CasADi's own matrices a call takes four times
    as long. One for each thread and size.

    Whether it succeeded an exception tells, not `stats()`: every 9580 calls that takes 3 ms (CasADi 3.8.2), up to 35 beside a simulated robot, with
    the interpreter's lock held."""

    _local = threading.local()

    @classmethod
    def of(cls, n: int) -> "_Solver":
        solvers: dict[Any, _Solver] = cls._local.__dict__
        if n not in solvers:
            solvers[n] = cls(n)
        return solvers[n]

    def __init__(self, n: int):
        shapes = {"h": casadi.Sparsity.dense(n, n), "a": casadi.Sparsity(0, n)}
        self.function = casadi.conic("qp", "daqp", shapes, {"error_on_fail": True})
        self.buffer, self.evaluate = self.function.buffer()
        self.given = {"h": np.zeros((n, n)), "g": np.zeros(n), "lbx": np.zeros(n), "ubx": np.zeros(n)}
        self.u = np.zeros(n)
        for name, x in self.given.items():
            self.buffer.set_arg(self.function.index_in(name), memoryview(x.data))
        self.buffer.set_res(self.function.index_out("x"), memoryview(self.u.data))

    def __call__(self, qp: QP, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, bool]:
        for x, value in zip(self.given.values(), (qp.hessian, qp.gradient, low, high), strict=True):
            x[:] = value
        self.u.fill(np.nan)
        try:
            self.evaluate()
        except RuntimeError:  # CasADi's, of a programme that it calls ill-posed or could not solve
            return self.u, False
        return self.u.copy(), True


def _cold(memory: Memory) -> np.ndarray:
    """(b,) bool: no plan to start from."""
    return np.asarray(~np.isfinite(memory.nodes).all((1, 2)))


def _held(fine: Expansion, hold: int) -> Response:
    """The answer of every step of the model to actions that are held."""
    response = respond(fine)
    b, n, d, columns = response.by_action.shape
    a = fine.by_action.shape[3]
    by_action = response.by_action.reshape(b, n, d, columns // a // hold, hold, a).sum(4)
    return response._replace(by_action=by_action.reshape(b, n, d, columns // hold))


def _like(which: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(b,) -> (b, 1, ..., 1), as many dimensions as x."""
    return which.reshape(-1, *[1] * (x.ndim - 1))
