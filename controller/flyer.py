"""The quadrotor's learning controller: adapt -> plan -> guard, every control period.

recent transitions          -> phi, z           dynamics.adapt, on the rows of dynamics.residual
z                           -> the load's mass in the symbolic slung-load model, exact derivatives included
phi, z along the last plan  -> e and de/d(s, a) at every knot, once a tick in torch, to first order beside it
both                        -> a plan           controller.baselines.nmpc, planners.nmpc
its first action, if good   -> the vehicle      controller.guard

Where the load is not seen, a filter says where it swings (dynamics.swing), and the rest sees that. The filter's belief about the load's
share, and about an acceleration that no load explains, then stands for the variational latent.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import casadi
import numpy as np
import torch
from torch import Tensor

from controller.baselines.baseline import Target, rotation, turn
from controller.baselines.nmpc import Tracker
from controller.config import UsageError, weights_of
from controller.guard import Guard, GuardMemory
from dynamics import checkpoint, swing
from dynamics.adapt.frozen import Frozen
from dynamics.adapt.gradient import GrBAL
from dynamics.adapt.last_layer import LastLayer
from dynamics.adapt.variational import Belief, Variational
from dynamics.mlp import MLP
from dynamics.nominal import Nominal
from dynamics.residual import N_OUT, Residual, Rows, share
from dynamics.swing import Swing
from dynamics.types import Adapter, Phi, Theta, Transitions, as_phi
from planners import nmpc
from planners.linearise import LeastSquares, from_residual
from robots.quadrotor import Quadrotor
from robots.trajectory import Reference

N_Z = 4
ROWS = Rows(N_Z)
ADAPTERS: dict[str, Any] = {"frozen": Frozen, "last-layer": LastLayer, "grbal": GrBAL, "variational": Variational}
HUGE = 1e6  # a state with a number beyond this is a fault of the sensors


class Diagnostics(NamedTuple):
    """One step's record. Errors are root mean squares over the six accelerations of the newest transition [m/s^2], NaN where there is none:
    before = theta's at z = 0, after = of the phi in force when it was predicted (never fitted to it)."""

    error_before: np.ndarray  # (b,)
    error_after: np.ndarray  # (b,)
    load_kg: np.ndarray  # (b,) what the plan is made for
    restarts: np.ndarray  # (b,) how often a change was noticed so far
    event: np.ndarray  # (b,) codes of guard.EVENTS
    adapt_ms: float
    plan_ms: float


class Memory(NamedTuple):
    recent: Transitions  # (b, k, .) rows
    carry: Any  # the adapter's
    phi: Phi  # in force when the last action was planned
    planner: nmpc.Memory
    guard: GuardMemory
    swing: swing.Memory | None  # where the load is not seen
    seen_s: np.ndarray  # (b, s) the last state as it came, NaN before the first step
    last_s: np.ndarray  # (b, 22) the last state, with the load as believed
    diagnostics: Diagnostics


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
            recent, self.adapter.init(self.theta, b), as_phi(self.theta), self.tracker.init(b), self.guard.init(b, h),
            None if self.unseen is None else self.unseen.init(b), np.full((b, 22 if self.unseen is None else 16), np.nan),
            np.full((b, 22), np.nan), Diagnostics(nan, nan, zero, zero, zero, 0.0, 0.0),
        )  # fmt: skip

    @torch.no_grad()
    def step(
        self,
        state: np.ndarray,
        reference: Reference,
        memory: Memory,
        pending: Sequence[tuple[float, np.ndarray]] = (),
    ) -> tuple[np.ndarray, Memory]:
        """memory.diagnostics: of this step. A row of `state` that is not finite is not learned from, and the guard holds. pending: (share of
        a period in (0, 1], action (b, 4)) of commands that act after this state and before the one that is planned here; the
        reference begins where they end."""
        start = time.perf_counter()
        usable = np.asarray((np.abs(state) < HUGE).all(1))
        raw = np.where(usable[:, None], state, np.nan_to_num(memory.seen_s))
        believed, s = self._sense(memory, raw, usable)
        recent, fresh = self._remember(memory, s, usable)
        before, after = (self._error(phi, recent, fresh) for phi in (as_phi(self.theta), memory.phi))
        mask = recent.mask.clone()
        mask[:, -1] &= fresh  # a row that is not new counts once, for an adapter that takes the newest alone
        phi, carry = self.adapter.adapt(self.theta, memory.carry, recent._replace(mask=mask))
        if believed is not None and isinstance(self.adapter, Variational):
            load = torch.as_tensor(believed.mean[:, 6:7], dtype=torch.float32)
            phi = phi._replace(z=torch.cat((load, torch.zeros(len(s), N_Z - 1)), 1))
        z = self._latent(phi, len(s))
        if not z.isfinite().all():
            phi, carry = as_phi(self.theta), self.adapter.init(self.theta, len(s))
            z = self._latent(phi, len(s))
        adapted = time.perf_counter()

        there = np.abs(s[:, 16:19]).sum(1) > 0
        mass = self.model.mass(z)[:, 0].double().numpy() * there
        ahead = self._ahead(phi, z, s, mass, pending)
        push, lacking = self._push(phi, z, ahead, memory.guard.action), self._lacking(phi, z)
        if believed is not None and isinstance(self.adapter, Variational):
            push, lacking = believed.mean[:, 7:], None
        plan, planner = self.tracker.plan(ahead, reference, memory.planner, mass, push, lacking)
        each = plan.actions.repeat_interleave(self.tracker.stride, 1)
        good = plan.valid & torch.as_tensor(usable)
        action, guard, event = self.guard.step(memory.guard, each, good)
        command = self.tracker.vehicle.command(action.double().numpy())
        planned = time.perf_counter()

        restarts = carry.restarts.numpy() if isinstance(carry, Belief) else np.zeros(len(s))
        restarts = restarts if believed is None else believed.restarts
        diagnostics = Diagnostics(
            before, after, mass, restarts, event.numpy(), 1e3 * (adapted - start), 1e3 * (planned - adapted)
        )
        raw, s = (np.where(usable[:, None], x, np.nan) for x in (raw, s))
        return command, Memory(recent, carry, phi, planner, guard, believed, raw, s, diagnostics)

    def _sense(self, memory: Memory, raw: np.ndarray, usable: np.ndarray) -> tuple[swing.Memory | None, np.ndarray]:
        """-> the filter's belief, and the state with the load where it is seen or believed (b, 22)."""
        if self.unseen is None or memory.swing is None:
            return None, raw
        now = np.where(usable[:, None], raw, np.nan)
        believed = self.unseen.step(memory.swing, memory.seen_s, memory.guard.action.double().numpy(), now)
        return believed, self.unseen.augment(believed, raw)

    def _ahead(
        self, phi: Phi, z: Tensor, s: np.ndarray, mass: np.ndarray, pending: Sequence[tuple[float, np.ndarray]]
    ) -> np.ndarray:
        """(b, 22) -> (b, 22) after the pending actions, by the slung-load model and what the network adds to it."""
        space, dt, now = self.tracker.model.space, self.tracker.vehicle.dt, s
        for part, action in pending:
            after = np.asarray(self._moved(now.T, action.T, mass[None])).T
            if self.unseen is None:
                x, a = torch.as_tensor(now)[:, None].float(), torch.as_tensor(action)[:, None].float()
                e = self.model.lacking(phi, x, a, z[:, None])[:, 0].double().numpy()
                after[:, 9:12] += dt * e[:, :3]
                after[:, 19:22] += dt * e[:, 3:]
            if part < 1:
                here, there = torch.as_tensor(now), torch.as_tensor(after)
                after = space.retract(here, part * space.local(here, there)).numpy()
            now = after
        return np.where(np.isfinite(now).all(1, keepdims=True), now, s)

    @cached_property
    def _moved(self) -> casadi.Function:
        """(s, a, load's mass) one control period later, as columns."""
        return Nominal(self.tracker.vehicle, load=True).symbolic()

    def _push(self, phi: Phi, z: Tensor, s: np.ndarray, a: Tensor) -> np.ndarray:
        """-> (b, 3) what the network adds now to the acceleration of vehicle and load together, in the world [m/s^2]."""
        e = self.model.lacking(phi, torch.as_tensor(s)[:, None].float(), a[:, None], z[:, None])[:, 0].double().numpy()
        return turn(rotation(s), e[:, :3] + share(z).double().numpy() * e[:, 3:])

    def _latent(self, phi: Phi, b: int) -> Tensor:
        return torch.zeros(b, N_Z) if phi.z is None else phi.z

    def _remember(self, memory: Memory, s: np.ndarray, usable: np.ndarray) -> tuple[Transitions, Tensor]:
        """Append the row of (last_s, last action, s). -> recent, where it was appended."""
        was = memory.last_s
        known = usable & np.isfinite(was).all(1)
        action = memory.guard.action
        x, x_next, good = self.model.rows(np.nan_to_num(was), action.double().numpy(), s)
        fresh = torch.as_tensor(known) & (good if self.unseen is None else True)
        new = Transitions(x, action, x_next, torch.ones(len(s), dtype=torch.bool))

        def push(old: Tensor, row: Tensor) -> Tensor:
            moved = torch.cat((old[:, 1:], row[:, None]), 1)
            return torch.where(fresh.view(-1, *[1] * (old.dim() - 1)), moved, old)

        return Transitions(*(push(o, n) for o, n in zip(memory.recent, new, strict=True))), fresh

    def _error(self, phi: Phi, recent: Transitions, fresh: Tensor) -> np.ndarray:
        newest = Transitions(*(x[:, -1:] for x in recent))
        error = self.model.error(phi, newest, self._latent(phi, len(fresh)))[:, 0].square().mean(-1).sqrt()
        return torch.where(fresh, error, torch.nan).double().numpy()

    def _lacking(self, phi: Phi, z: Tensor) -> LeastSquares:
        def e(s: Tensor, a: Tensor) -> Tensor:
            m, b, n, _ = s.shape
            s, a = (x.movedim(1, 0).reshape(b, m * n, -1).float() for x in (s, a))
            out = self.model.lacking(phi, s, a, z[:, None].expand(-1, m * n, -1))
            return out.view(b, m, n, N_OUT).movedim(1, 0).double()

        space = self.tracker.model.space
        return from_residual(e, space.retract, space.n_delta, N_OUT)


def _unknown() -> np.ndarray:
    raise RuntimeError("a Flyer gives the load's mass with every plan")


def make_flyer(adapter: str, robot: Quadrotor, target: Target, weights: Path | None = None) -> Flyer:
    """For a robot that sees its load or does not. Raises UsageError on an unknown adapter, CheckpointError."""
    if adapter not in ADAPTERS:
        raise UsageError(f"unknown adapter {adapter!r}; valid: {', '.join(ADAPTERS)}")
    loaded = checkpoint.load(weights or weights_of(robot.name, adapter), robot.name, ROWS)
    learned = {name.split(".")[0] for name in loaded.theta.meta}
    if adapter != "frozen" and adapter not in learned:
        raise UsageError(
            f"the checkpoint has no meta parameters for adapter {adapter!r}; valid: {', '.join(sorted({'frozen'} | learned))}, "
            f"or a checkpoint made by `sealegs learn quadrotor`"
        )
    return assemble(adapter, robot, target, loaded.model, loaded.theta)


def assemble(adapter: str, robot: Quadrotor, target: Target, model: MLP, theta: Theta) -> Flyer:
    one, safe = torch.ones(4), torch.as_tensor(robot.safe_action)
    tracker = Tracker(robot.vehicle, target, _unknown)
    unseen = None if robot.space.load else Swing(robot.vehicle)
    return Flyer(
        Residual(robot.vehicle, model, N_Z), theta, ADAPTERS[adapter](model), tracker, Guard(-one, one, safe), unseen
    )
