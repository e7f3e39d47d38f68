"""Nonlinear MPC on a symbolic model (planners.nmpc): on the nominal vehicle, which knows of no load, and the oracle, on the vehicle
with its slung load and the load's true mass.

The residual, at every knot, weighted:

    p - p_ref,  v - v_ref  in the world, of the vehicle or of the load;  heading;  w - w_ref;  T - T_ref;  commands - their feed-forward
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import casadi
import numpy as np

from controller.baselines.baseline import Target, feedforward, hang, limit, rotation, turn
from dynamics.nominal import PRESENT, Nominal
from planners.condense import Expansion
from planners.linearise import LeastSquares
from planners.nmpc import NMPC, Memory
from planners.planner import Plan
from planners.symbolic import Symbolic, SymbolicTangent, expand_symbolic
from robots import symbolic
from robots.trajectory import Reference
from robots.vehicle import Vehicle


@dataclass(frozen=True)
class Weights:
    """Per unit squared, of the residual's parts."""

    position: float = 200.0  # [1/m^2]
    velocity: float = 0.25  # [s^2/m^2]
    heading: float = 10.0
    rates: float = 0.025  # [s^2/rad^2]
    thrust: float = 0.0625  # of the action's unit
    turn: float = 0.125  # of the action's unit
    swing: float = 0.0  # [s^2/m^2], of the load's velocity relative to the vehicle's
    final: float = 5.0  # factor on position and velocity at the last knot


@dataclass(frozen=True)
class Tracker:
    """load_kg: None for the nominal model; for the oracle what returns the true mass (b,) [kg] of every load, now."""

    vehicle: Vehicle
    target: Target = "vehicle"
    load_kg: Callable[[], np.ndarray] | None = None
    weights: Weights = field(default_factory=Weights)
    horizon: int = 20
    stride: int = 5  # control periods a knot

    @property
    def preview(self) -> int:
        return self.horizon * self.stride

    @cached_property
    def planner(self) -> NMPC:
        space = self.model.space
        hover = self.vehicle.action(np.array([self.vehicle.hover_thrust_n, 0, 0, 0]))
        return NMPC(
            space.retract, space.local, space.n_state, space.n_delta, -np.ones(4), np.ones(4), hover, self.horizon,
            shift=1 / self.stride, tangent=SymbolicTangent(symbolic.retract, symbolic.local, space.n_state, space.n_delta),
        )  # fmt: skip

    @cached_property
    def model(self) -> Nominal:
        """One step of it is a knot."""
        return Nominal(
            replace(self.vehicle, control_rate_hz=self.vehicle.control_rate_hz / self.stride), self.load_kg is not None
        )

    @cached_property
    def _dynamics(self) -> Symbolic:
        f, space = self.model.symbolic(), self.model.space

        def gap(s: casadi.SX, a: casadi.SX, target: casadi.SX, mass: casadi.SX, push: casadi.SX) -> casadi.SX:
            dt = self.model.vehicle.dt
            s_next = f(s, a, mass)
            body = symbolic.rotation(s_next).T @ push
            kick = casadi.vertcat(dt**2 / 2 * push, casadi.SX.zeros(6), dt * body, casadi.SX.zeros(s.numel() - 12))
            return symbolic.local(target, s_next + kick)

        return expand_symbolic(gap, symbolic.retract, space.n_state, space.n_delta, 4, space.n_state, 1, 3)

    @cached_property
    def _lacking(self) -> Symbolic:
        """As _dynamics, of the vehicle with its load; the last six actions are what the model lacks, see `plan`."""
        f, space = self.model.symbolic(), self.model.space

        def gap(s: casadi.SX, inputs: casadi.SX, target: casadi.SX, mass: casadi.SX) -> casadi.SX:
            dt, (a, e_v, e_rd) = self.model.vehicle.dt, casadi.vertsplit(inputs, [0, 4, 7, 10])
            moved = dt**2 / 2 * (symbolic.rotation(s) @ e_v)
            kick = casadi.vertcat(moved, casadi.SX.zeros(6), dt * e_v, casadi.SX.zeros(4), dt**2 / 2 * e_rd, dt * e_rd)
            return symbolic.local(target, f(s, a, mass) + kick)

        return expand_symbolic(gap, symbolic.retract, space.n_state, space.n_delta, 10, space.n_state, 1)

    @cached_property
    def _residual(self) -> Symbolic:
        space, w = self.model.space, self.weights
        loaded = self.load_kg is not None

        def residual(s: casadi.SX, a: casadi.SX, ref: casadi.SX) -> casadi.SX:
            p_ref, v_ref, w_ref, a_ref, scale = casadi.vertsplit(ref, [0, 3, 6, 9, 13, 14])
            rot = symbolic.rotation(s)
            p, v = s[:3], rot @ s[9:12]
            if loaded and self.target == "payload":
                p, v = p + rot @ s[16:19], v + rot @ s[19:22]
            parts = [
                np.sqrt(w.position) * scale * (p - p_ref), np.sqrt(w.velocity) * scale * (v - v_ref), np.sqrt(w.heading) * s[4],
                np.sqrt(w.rates) * (s[12:15] - w_ref), np.sqrt(w.thrust) * (a[0] - a_ref[0]), np.sqrt(w.turn) * (a[1:] - a_ref[1:]),
            ]  # fmt: skip
            if loaded and w.swing:
                parts.append(np.sqrt(w.swing) * s[19:22])
            return casadi.vertcat(*parts)

        return expand_symbolic(residual, symbolic.retract, space.n_state, space.n_delta, 4, 14)

    def init(self, b: int) -> Memory:
        return self.planner.init(b)

    def step(
        self, state: np.ndarray, reference: Reference, memory: Memory, push: np.ndarray | None = None
    ) -> tuple[np.ndarray, Memory]:
        """push: (b, 3) an acceleration in the world that the model lacks [m/s^2], constant over the horizon."""
        mass = np.zeros(len(state)) if self.load_kg is None else self.load_kg()
        plan, memory = self.plan(state, reference, memory, mass, push)
        command = self.vehicle.command(plan.actions[:, 0].double().numpy())
        return limit(self.vehicle, command[:, 0], command[:, 1:]), memory

    def plan(
        self, state: np.ndarray, reference: Reference, memory: Memory, mass: np.ndarray, push: np.ndarray | None = None,
        lacking: LeastSquares | None = None,
    ) -> tuple[Plan, Memory]:  # fmt: skip
        """mass: (b,) of the load [kg]. lacking: with a load, what else the model lacks at the horizon's knots, states (b, h, 22), actions
        (b, h, 4) -> Expansion of (b, h, 6) accelerations of the vehicle and of the load relative to it, in body coordinates [m/s^2]; the push
        then steers the feed-forward alone."""
        b, h, vehicle = len(state), self.horizon, self.vehicle
        if self.target == "payload" and self.load_kg is None:
            reference = hang(reference, state, vehicle.dt)
        knots = Reference(*(x[:, self.stride :: self.stride] for x in reference))
        push = np.zeros((b, 3)) if push is None else push
        force, rates = feedforward(knots._replace(a=knots.a - push[:, None]))
        thrust = (vehicle.mass_kg + mass)[:, None] * np.linalg.norm(force, axis=-1)
        wanted = vehicle.action(np.concatenate((thrust[..., None], rates), -1))
        scale = np.ones((b, h, 1))
        scale[:, -1] = np.sqrt(self.weights.final)
        ref = np.concatenate((knots.p, knots.v, rates, wanted, scale), -1)
        masses = np.repeat(mass, h)[:, None]

        def linearise(nodes: np.ndarray, actions: np.ndarray) -> Expansion:
            goals = nodes[:, 1:].reshape(b * h, -1)
            if lacking is None:
                return _expand(self._dynamics, nodes[:, :-1], actions, goals, masses, np.repeat(push, h, 0))
            e = lacking(nodes[:, :-1], actions)
            gap = _expand(self._lacking, nodes[:, :-1], np.concatenate((actions, e.value), -1), goals, masses)
            by_action, by_lack = gap.by_action[..., :4], gap.by_action[..., 4:]
            return Expansion(gap.value, gap.by_state + by_lack @ e.by_state, by_action + by_lack @ e.by_action)

        def cost(states: np.ndarray, actions: np.ndarray) -> Expansion:
            return _expand(self._residual, states, actions, ref.reshape(b * h, -1))

        state = state[:, : self.planner.n_state]
        if self.load_kg is not None:
            memory = _hang(memory, state)
        return self.planner.solve(memory, linearise, state, cost)


def _hang(memory: Memory, state: np.ndarray) -> Memory:
    """Where a load has come or gone since the last plan, its nodes get it, as it hangs now (in the world), or lose it. A node without a load
    leads to one without: left to itself, a plan would learn of the change one knot a tick, with gaps from one node to the next that
    no linearisation bridges."""
    seen, planned = (np.linalg.norm(x, axis=1) > PRESENT for x in (state[:, 16:19], memory.nodes[:, 0, 16:19]))
    changed = (seen != planned) & np.isfinite(memory.nodes).all((1, 2)) & np.isfinite(state).all(1)
    if not changed.any():
        return memory
    s, nodes = state[changed], memory.nodes.copy()
    b, n, _ = nodes[changed].shape
    back = rotation(nodes[changed].reshape(b * n, -1)).reshape(b, n, 3, 3).swapaxes(2, 3)
    load = [turn(back, turn(rotation(s), s[:, at])[:, None]) for at in (slice(16, 19), slice(19, 22))]
    nodes[changed, :, 16:] = np.concatenate(load, -1)
    return memory._replace(nodes=nodes)


def _expand(f: Symbolic, states: np.ndarray, actions: np.ndarray, *parameters: np.ndarray) -> Expansion:
    b, h, _ = actions.shape
    out = f(states.reshape(b * h, -1), actions.reshape(b * h, -1), *parameters)
    return Expansion(*(x.reshape(b, h, *x.shape[1:]) for x in out))
