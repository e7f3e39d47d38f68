"""The quadrotor's learning controller: adapt -> plan -> guard, every control period.

recent transitions          -> phi, z           dynamics.adapt, on the rows of dynamics.residual
z                           -> the load's mass in the symbolic slung-load model, exact derivatives included
phi, z along the last plan  -> e and de/d(s, a) at every knot, once a tick, to first order beside it; none where the network is silent
both                        -> a plan           controller.baselines.nmpc, planners.nmpc
its first action, if good   -> the vehicle      controller.guard

Adaptation is part of the preparation (`Flyer.prepare`), so a plan knows every transition but the newest: a command waits neither for it nor for
the model's expansion, nor for what is to be learned from its state (`Flyer.conclude`). On training's loads (path at 2 m/s, 18 episodes a path)
that is as good as adapting first: 2.39 and 1.65 mm against 2.39 and 1.68 on the figure-eight and the random path.

Where the load is not seen, a filter says where it swings (dynamics.swing), and the rest sees that. The filter's belief about the load's
share, and about an acceleration that no load explains, then stands for the variational latent.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import casadi
import numpy as np
import torch
from torch import Tensor

from controller.baselines.baseline import rotation, turn
from controller.baselines.nmpc import Plant, Tracker
from controller.guard import Guard, GuardMemory
from dynamics import swing
from dynamics.adapt.variational import Belief, Row, Variational, left
from dynamics.nominal import Nominal
from dynamics.residual import Residual, Rows
from dynamics.swing import Swing
from dynamics.types import Adapter, Phi, Theta, Transitions, as_phi
from native.symbolic import Symbolic
from planners import nmpc
from planners.condense import Expansion
from robots import symbolic
from robots.autopilot import Autopilot
from robots.trajectory import Reference

N_Z = 4
ROWS = Rows(N_Z)
LOST = 0.3  # of the hover thrust: where more is missing, how much is not known well enough to learn from
Pending = Sequence[
    tuple[float, np.ndarray]
]  # (share of a period in (0, 1], action (b, 4)) of commands, one after the other
HUGE = 1e6  # a state with a number beyond this is a fault of the sensors


class Diagnostics(NamedTuple):
    """One step's record. Errors are root mean squares over the six accelerations of the newest transition [m/s^2], NaN where there is none:
    before = theta's at z = 0, after = of the phi that the plan is made for, which was fitted to every transition but this one."""

    error_before: np.ndarray  # (b,) both NaN between `feedback` and `conclude`
    error_after: np.ndarray  # (b,)
    load_kg: np.ndarray  # (b,) what the plan is made for
    restarts: np.ndarray  # (b,) how often a change was noticed so far
    event: np.ndarray  # (b,) codes of guard.EVENTS
    adapt_ms: float  # where `prepare` was called, it is part of these two; `conclude` is part of this one
    plan_ms: float
    feedback_ms: float  # from the state to the command, `prepare` left out


class Newest(NamedTuple):
    """A row of dynamics.residual that no phi knows yet."""

    x: Tensor  # (b, .)
    a: Tensor  # (b, 4)
    x_next: Tensor  # (b, .)
    fresh: Tensor  # (b,) bool: it is to be learned from


class Prepared(NamedTuple):
    """What a step does before its state comes."""

    mass: np.ndarray  # (b,) of the load, were there one [kg]
    push: np.ndarray  # (b, 3) see controller.baselines.nmpc.Plant
    problem: nmpc.Prepared
    adapt_ms: float
    expand_ms: float


class Given(NamedTuple):
    """A transition as seen, its thrust as the rotors gave it."""

    s: np.ndarray  # (b, s)
    a: np.ndarray  # (b, 4)
    s_next: np.ndarray  # (b, s)
    lost: np.ndarray  # (b,) of s_next's thrust [N]


class Passed(NamedTuple):
    """A transition that no row was made of yet."""

    last_s: np.ndarray  # (b, 22) as Memory has it
    lost: np.ndarray  # (b,) likewise
    given: Given
    s: np.ndarray  # (b, 22) the state that it led to
    usable: np.ndarray  # (b,) bool


class Memory(NamedTuple):
    recent: Transitions  # (b, k, .) rows
    newest: Newest | None  # not yet among them
    passed: Passed | None  # what newest is to be made of
    carry: Any  # the adapter's
    phi: Phi
    planner: nmpc.Memory
    guard: GuardMemory
    swing: swing.Memory | None  # where the load is not seen
    lost: np.ndarray  # (b,) collective thrust that the rotors do not give, though the state says so [N]
    seen_s: np.ndarray  # (b, s) the last state as it came, NaN before the first step
    last_s: np.ndarray  # (b, 22) the last state, with the load as believed
    diagnostics: Diagnostics
    prepared: Prepared | None = None


@dataclass(frozen=True)
class Flyer:
    """controller.baselines.baseline.Baseline. k: context window, in transitions."""

    model: Residual
    theta: Theta
    adapter: Adapter
    tracker: Tracker
    guard: Guard
    unseen: Swing | None = None
    k: int = 32

    @property
    def preview(self) -> int:
        return self.tracker.preview

    def init(self, b: int) -> Memory:
        n, h = ROWS.n_state, self.tracker.preview
        recent = Transitions(
            torch.zeros(b, self.k, n), torch.zeros(b, self.k, 4), torch.zeros(b, self.k, n),
            torch.zeros(b, self.k, dtype=torch.bool),
        )  # fmt: skip
        nan, zero = np.full(b, np.nan), np.zeros(b)
        return Memory(
            recent, None, None, self.adapter.init(self.theta, b), as_phi(self.theta), self.tracker.init(b), self.guard.init(b, h),
            None if self.unseen is None else self.unseen.init(b), zero, np.full((b, 22 if self.unseen is None else 16), np.nan),
            np.full((b, 22), np.nan), Diagnostics(nan, nan, zero, zero, zero, 0.0, 0.0, 0.0),
        )  # fmt: skip

    @torch.no_grad()
    @np.errstate(all="ignore")  # what overflows is a plan that fails, and is handled as one
    def prepare(self, memory: Memory) -> Memory:
        """The preparation phase of the real-time iteration (Diehl, Bock, Schloeder 2005): what the next step can do before its state comes.
        Learns from the newest transition and adapts, expands the adapted model along the last plan, shifted, and condenses. `step` does it
        itself where it was not done: to the bit the same. It reads neither `guard` nor `seen_s`, `last_s` and `lost`, so these may be
        replaced in between."""
        if memory.prepared is not None:
            return memory
        memory = self.conclude(memory)
        start = time.perf_counter()
        recent, phi, carry = memory.recent, memory.phi, memory.carry
        b = len(recent.mask)
        if memory.newest is not None:
            recent, fresh = _append(recent, memory.newest), memory.newest.fresh
            mask = recent.mask.clone()
            mask[:, -1] &= fresh  # a row that is not new counts once, for an adapter that takes the newest alone
            phi, carry = self.adapter.adapt(self.theta, carry, recent._replace(mask=mask))
        if self._filtered and memory.swing is not None:
            load = torch.as_tensor(memory.swing.mean[:, 6:7], dtype=torch.float32)
            phi = phi._replace(z=torch.cat((load, torch.zeros(b, N_Z - 1)), 1), speaks=torch.zeros(b))
        z = self._latent(phi, b)
        if (lost := ~z.isfinite().all(1)).any():  # of the latent's adapter: it starts anew, for these robots alone
            carry = type(carry)(
                *(_rows(lost, x, y) for x, y in zip(self.adapter.init(self.theta, b), carry, strict=True))
            )
            z = _rows(lost, torch.zeros_like(z), z)
            phi = phi._replace(z=z, speaks=None if phi.speaks is None else _rows(lost, torch.zeros(b), phi.speaks))
        adapted = time.perf_counter()
        mass = self.model.mass(z)[:, 0].double().numpy()
        push = np.zeros((b, 3))
        plant = self._plant(phi, mass, push)
        if self._filtered and memory.swing is not None:
            push = memory.swing.mean[:, 7:]
        elif plant.lacking is not None:
            push = self._push(phi, z, self.tracker.expected(memory.planner, plant), memory.planner.actions[:, 0])
            push = np.where(np.isfinite(push), push, 0.0)  # without a last plan nothing is expected yet
        problem = self.tracker.prepare(memory.planner, plant._replace(push=push))
        expanded = time.perf_counter()
        prepared = Prepared(mass, push, problem, 1e3 * (adapted - start), 1e3 * (expanded - adapted))
        return memory._replace(recent=recent, newest=None, phi=phi, carry=carry, prepared=prepared)

    def step(
        self, state: np.ndarray, reference: Reference, memory: Memory, pending: Pending = ()
    ) -> tuple[np.ndarray, Memory]:
        """`feedback` and `conclude`. memory.diagnostics: of this step."""
        command, memory = self.feedback(state, reference, memory, pending)
        return command, self.conclude(memory)

    @torch.no_grad()
    @np.errstate(all="ignore")
    def feedback(
        self, state: np.ndarray, reference: Reference, memory: Memory, pending: Pending = ()
    ) -> tuple[np.ndarray, Memory]:
        """The feedback phase, after `prepare` where that was not done. A row of `state` that is not finite is not learned from, and the guard
        holds. pending: of commands that act after this state and before the one that is planned here; the reference begins where they end."""
        memory = self.prepare(memory)
        assert memory.prepared is not None
        prepared = memory.prepared
        start = time.perf_counter()
        usable = np.asarray((np.abs(state) < HUGE).all(1))
        raw = np.where(usable[:, None], state, np.nan_to_num(memory.seen_s))
        given = self._given(memory, raw)
        believed, s = self._sense(memory, given, raw, usable)
        phi, z = memory.phi, self._latent(memory.phi, len(s))
        mass = prepared.mass * (np.abs(s[:, 16:19]).sum(1) > 0)
        ahead = self._ahead(phi, z, s, mass, pending)
        plant = self._plant(phi, prepared.mass, prepared.push)
        plan, planner = self.tracker.plan(ahead, reference, memory.planner, plant, prepared.problem)
        each = plan.actions.repeat_interleave(self.tracker.stride, 1)
        good = plan.valid & torch.as_tensor(usable)
        action, guard, event = self.guard.step(memory.guard, each, good)
        command = self.tracker.vehicle.command(action.double().numpy())
        feedback_ms = 1e3 * (time.perf_counter() - start)

        restarts = memory.carry.restarts.numpy() if isinstance(memory.carry, Belief) else np.zeros(len(s))
        restarts = restarts if believed is None else believed.restarts
        plan_ms = prepared.expand_ms + feedback_ms
        unknown = np.full(len(s), np.nan)
        passed = Passed(memory.last_s, memory.lost, given, s, usable)
        diagnostics = Diagnostics(
            unknown, unknown, mass, restarts, event.numpy(), prepared.adapt_ms, plan_ms, feedback_ms
        )
        raw, s = (np.where(usable[:, None], x, np.nan) for x in (raw, s))
        return command, Memory(
            memory.recent, None, passed, memory.carry, phi, planner, guard, believed, given.lost, raw, s, diagnostics
        )

    @torch.no_grad()
    @np.errstate(all="ignore")
    def conclude(self, memory: Memory) -> Memory:
        """What a step's command does not wait for: the row that the next `prepare` learns from, and the diagnostics' errors. `prepare` does it
        itself where it was not done."""
        if memory.passed is None:
            return memory
        start = time.perf_counter()
        newest = self._row(memory.passed)
        before, after = self._errors(memory.phi, newest)
        told, took = memory.diagnostics, 1e3 * (time.perf_counter() - start)
        told = told._replace(error_before=before, error_after=after, adapt_ms=told.adapt_ms + took)
        return memory._replace(newest=newest, passed=None, diagnostics=told)

    @property
    def _filtered(self) -> bool:
        """Whether the filter's belief stands for the latent."""
        return self.unseen is not None and isinstance(self.adapter, Variational)

    def _plant(self, phi: Phi, mass: np.ndarray, push: np.ndarray) -> Plant:
        z = self._latent(phi, len(mass)).numpy()
        if phi.speaks is not None and not phi.speaks.any():
            return Plant(mass, push)
        return Plant(mass, push, lambda s, a: Expansion(*self.model.expand(phi, s, a, z)))

    def _sense(
        self, memory: Memory, given: Given, raw: np.ndarray, usable: np.ndarray
    ) -> tuple[swing.Memory | None, np.ndarray]:
        """-> the filter's belief, and the state with the load where it is seen or believed (b, 22)."""
        if self.unseen is None or memory.swing is None:
            return None, raw
        now = np.where(usable[:, None], given.s_next, np.nan)
        believed = self.unseen.step(memory.swing, given.s, given.a, now)
        return believed, self.unseen.augment(believed, raw)

    def _ahead(self, phi: Phi, z: Tensor, s: np.ndarray, mass: np.ndarray, pending: Pending) -> np.ndarray:
        """(b, 22) -> (b, 22) after the pending actions, by the slung-load model and what the network adds to it."""
        now, e = s, np.zeros((len(s), 6))
        for part, action in pending:
            if phi.speaks is None or phi.speaks.any():
                e = self.model.add(phi, now, action, z.numpy())
            (now,) = self._moved(now, action, mass[:, None], e, np.full((len(s), 1), part))
        return np.where(np.isfinite(now).all(1, keepdims=True), now, s)

    @cached_property
    def _moved(self) -> Symbolic:
        """s (22), a (4), the load's mass, what the network adds (6), a share of the control period -> s (22) by then."""
        vehicle = self.tracker.vehicle
        s, a, mass, e, part = (casadi.SX.sym(x, n) for x, n in (("s", 22), ("a", 4), ("m", 1), ("e", 6), ("part", 1)))
        after = Nominal(vehicle, load=True).symbolic()(s, a, mass)
        after[9:12] += vehicle.dt * e[:3]
        after[19:22] += vehicle.dt * e[3:]
        there = symbolic.retract(s, part * symbolic.local(s, after))
        return Symbolic(casadi.Function("moved", [s, a, mass, e, part], [casadi.densify(there)], {"cse": True}))

    @cached_property
    def _autopilot(self) -> Autopilot:
        return Autopilot(self.model.vehicle)

    def _given(self, memory: Memory, s: np.ndarray) -> Given:
        """The transition that led to s, with the thrust that the rotors gave. Where one of them is at its limit, the mixer keeps roll and pitch
        and lets collective thrust go (robots.autopilot), which the state's T does not know of: a model that believed T would take what is
        missing for weight. How much is missing follows from commands and body rates alone."""
        vehicle, pilot = self.model.vehicle, self._autopilot
        was, action = memory.seen_s, memory.guard.action.double().numpy()
        before, now = was[:, 12:15], np.nan_to_num(s[:, 12:15])
        command, w = vehicle.command(action), (np.where(np.isfinite(before), before, now) + now) / 2
        torque = pilot.inertia * pilot.gain * (command[:, 1:] - w)
        short = command[:, 0] - pilot.rotors(command[:, 0], torque).sum(1)
        lost = memory.lost + (1 - np.exp(-vehicle.dt / vehicle.rotor_time_constant_s)) * (short - memory.lost)
        action[:, 0] -= short / vehicle.command_scale[0]
        return Given(_less(was, memory.lost), action, _less(s, lost), lost)

    def _push(self, phi: Phi, z: Tensor, s: np.ndarray, a: np.ndarray) -> np.ndarray:
        """-> (b, 3) what the network adds to the acceleration of vehicle and load together, in the world [m/s^2]."""
        return turn(rotation(s), self.model.push(phi, s, a, z.numpy()).astype(float))

    def _latent(self, phi: Phi, b: int) -> Tensor:
        return torch.zeros(b, N_Z) if phi.z is None else phi.z

    def _row(self, passed: Passed) -> Newest:
        """Of (last_s, last action, s), as given."""
        last_s, lost, given, s, usable = passed
        was = _less(last_s, lost)
        exact = np.maximum(given.lost, lost) < LOST * self.model.vehicle.hover_thrust_n
        known = usable & exact & np.isfinite(was).all(1)
        x, x_next, good = self.model.rows(np.nan_to_num(was), given.a, _less(s, given.lost))
        fresh = torch.as_tensor(known) & (good if self.unseen is None else True)
        return Newest(x, torch.as_tensor(given.a).float(), x_next, fresh)

    def _errors(self, phi: Phi, newest: Newest) -> tuple[np.ndarray, np.ndarray]:
        """-> (b,) theta's, (b,) phi's [m/s^2]."""
        known, b = newest.fresh.numpy(), len(newest.fresh)
        row = Row(*(x[:, None].numpy() for x in newest[:3]))
        zero, z = np.zeros((b, N_Z), np.float32), self._latent(phi, b).numpy()
        if phi.net is self.theta.net:  # one call of the network for both
            both = phi if phi.speaks is None else phi._replace(speaks=torch.cat((torch.ones(b), phi.speaks)))
            error = left(self.model.mlp, both, Row(*(np.concatenate((x, x)) for x in row)), np.concatenate((zero, z)))
        else:
            parts = (left(self.model.mlp, *of) for of in ((as_phi(self.theta), row, zero), (phi, row, z)))
            error = np.concatenate(list(parts))
        size = np.sqrt((error[:, 0] ** 2).mean(-1)).astype(float)
        return np.where(known, size[:b], np.nan), np.where(known, size[b:], np.nan)


def _rows(which: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x in the rows `which` (b,), y elsewhere."""
    return torch.where(which.view(-1, *[1] * (y.dim() - 1)), x, y)


def _append(recent: Transitions, newest: Newest) -> Transitions:
    """Where the row is fresh."""
    fresh = newest.fresh
    if not fresh.any():
        return recent
    every = bool(fresh.all())

    def push(old: Tensor, row: Tensor) -> Tensor:
        moved = torch.cat((old[:, 1:], row[:, None]), 1)
        return moved if every else torch.where(fresh.view(-1, *[1] * (old.dim() - 1)), moved, old)

    rows = (newest.x, newest.a, newest.x_next, torch.ones_like(fresh))
    return Transitions(*(push(o, n) for o, n in zip(recent, rows, strict=True)))


def _less(s: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """States (b, >= 16) with less thrust (b,) [N]."""
    return np.concatenate((s[:, :15], s[:, 15:16] - lost[:, None], s[:, 16:]), 1)
