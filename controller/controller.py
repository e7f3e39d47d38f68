"""The loop: adapt -> plan -> guard. Pure: `init` makes the memory, `step` returns the next one, nothing mutates.

One controller drives a batch of b robots of one kind (b = 1 on hardware). Every robot has a random stream of its own, kept in the memory, so
that a recorded run replays to identical actions and a robot's run does not depend on who shares its batch.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from controller.guard import BLIND, HOLD, OK, RIGHT, THETA, Guard, GuardMemory
from controller.righting import Righting
from dynamics.mlp import MLP
from dynamics.types import Adapter, Phi, Theta, Transitions, as_phi
from planners.planner import Cost, Planner, Terminal
from planners.shooting import Search, Shooting

ROUNDED = 1e-8  # of a mean squared normalised error: a phi that is theta but for float32's rounding is not worse
HUGE = 1e6  # a state with a number beyond this is a fault of the sensors: its squares would overflow further on

Stepper = Callable[[Phi], Callable[[Tensor, Tensor], Tensor]]


class Diagnostics(NamedTuple):
    """One step's record. Errors are root mean squares of the normalised one-step error on the newest transition, NaN where
    there is none: before = theta's, after = that of the phi which was in force when it was predicted (never fitted to it)."""

    error_before: np.ndarray  # (b,)
    error_after: np.ndarray  # (b,)
    plan_cost: np.ndarray  # (b,)
    event: np.ndarray  # (b,) codes of guard.EVENTS
    adapt_ms: float
    plan_ms: float
    total_ms: float


class Ready(NamedTuple):
    """What `prepare` made."""

    search: Search
    known: Tensor  # (b,) bool: where the state was expected
    rng: tuple[Tensor, ...]  # a generator state for each robot
    blind: Tensor | None = None  # (b, h, a) the plan from there on, in case no state comes


class Memory(NamedTuple):
    recent: Transitions  # (b, k, .)
    carry: Any  # the adapter's
    phi: Phi  # in force when the last action was planned
    warm: Any  # the planner's
    guard: GuardMemory
    last_s: Tensor  # (b, s), NaN where the robot has just started or its state was unusable
    rng: tuple[Tensor, ...]  # a generator state for each robot
    expected: (
        Tensor  # (b, s) where the next plan begins, NaN where that is not known; only with a planner that works ahead
    )
    lain: Tensor  # (b,) int, steps each robot has lain; only with a motion that rights it
    ready: Ready | None = None


@dataclass(frozen=True)
class Controller:
    """theta is never changed. k: context window, in transitions. discount: weight of a transition
    against the next newer one where phi is held against theta: the window still shows the old body for k steps after it broke, and a phi that fits
    the new one must not be thrown away for that. deadline_ms: a step that takes longer is late, and the guard holds the
    last plan instead; None where time does not matter (simulation, replay)."""

    model: MLP
    theta: Theta
    adapter: Adapter
    planner: Planner
    cost: Cost
    guard: Guard
    terminal: Terminal | None = None
    righting: Righting | None = None
    k: int = 32
    discount: float = 0.85
    dtype: torch.dtype = torch.float32
    deadline_ms: float | None = None

    def init(self, seeds: Sequence[int]) -> Memory:
        """One robot for each seed."""
        b, space = len(seeds), self.model.space
        warm = self.planner.init(b)
        horizon = getattr(self.planner, "horizon", 1)
        nothing = Transitions(
            torch.zeros(b, self.k, space.n_state), torch.zeros(b, self.k, space.n_action),
            torch.zeros(b, self.k, space.n_state), torch.zeros(b, self.k, dtype=torch.bool),
        )  # fmt: skip
        rng = tuple(torch.Generator().manual_seed(seed).get_state() for seed in seeds)
        return Memory(
            nothing, self.adapter.init(self.theta, b), as_phi(self.theta), warm, self.guard.init(b, horizon),
            torch.full((b, space.n_state), torch.nan), rng, torch.full((b, space.n_state), torch.nan),
            torch.zeros(b, dtype=torch.int64),
        )  # fmt: skip

    def restart(self, memory: Memory, which: np.ndarray) -> Memory:
        """Forget everything but the random streams of the robots in `which` (b,) bool: they start a new episode."""
        if not which.any():
            return memory
        fresh = self.init([0] * len(memory.rng))
        keep = torch.as_tensor(~which)
        pick = _picker(keep)
        phi = _pick_phi(keep, memory.phi, self.theta, self.model.neutral)
        return Memory(
            _tree(pick, memory.recent, fresh.recent), _tree(pick, memory.carry, fresh.carry), phi,
            _tree(pick, memory.warm, fresh.warm), _tree(pick, memory.guard, fresh.guard),
            pick(memory.last_s, fresh.last_s), memory.rng, pick(memory.expected, fresh.expected),
            pick(memory.lain, fresh.lain),
        )  # fmt: skip

    @torch.no_grad()
    def prepare(self, memory: Memory) -> Memory:
        """What of the next step needs no new state: the planner's first iterations, from where phi expects the robots by then. `step` does it
        where it was not done, and returns the same either way: to be called when the command is out."""
        known = memory.expected.isfinite().all(-1)
        if (early := self._early) is None or memory.ready is not None or not known.any():
            return memory
        return memory._replace(ready=self._prepare(early, memory, memory.phi, memory.expected))

    @torch.no_grad()
    def foresee(self, memory: Memory) -> Memory:
        """The rest of a search that was prepared, from where the robots are expected: the plan for the case that no state comes, which is better
        than what the last plan says of its later steps. None of a robot that is not expected anywhere, or being righted."""
        ready, early = memory.ready, self._early
        if early is None or ready is None or ready.blind is not None or not ready.known.all():
            return memory
        if self.righting is not None and self.righting.rights(memory.lain).any():
            return memory
        predict, rngs = self.model.stepper(memory.phi, self.dtype), _generators(ready.rng)
        plan, _ = early.plan(memory.warm, predict, memory.expected, self.cost, rngs, self.terminal, ready.search)
        return memory._replace(ready=ready._replace(blind=plan.actions)) if plan.valid.all() else memory

    @torch.no_grad()
    def miss(self, memory: Memory) -> tuple[np.ndarray, Memory, np.ndarray]:
        """No state came -> action (b, a), memory, event (b,): BLIND where a plan was foreseen, which the guard then holds, else HOLD of the last
        one; RELAX after too many. The next state is not the end of a transition."""
        guard, blind = memory.guard, None if memory.ready is None else memory.ready.blind
        if blind is not None:  # as the guard indexes it: its first action comes after so many failures
            step = (torch.arange(blind.shape[1])[None] - guard.failures[:, None] - 1).clamp_min(0)
            guard = guard._replace(plan=blind.gather(1, step[..., None].expand_as(blind)))
        action, guard, event = self.guard.step(guard, guard.plan, torch.zeros(len(guard.plan), dtype=torch.bool))
        if blind is not None:
            event = torch.where(event == HOLD, BLIND, event)
        nowhere = torch.full_like(memory.last_s, torch.nan)
        memory = memory._replace(guard=guard, last_s=nowhere, expected=nowhere, ready=None)
        return action.numpy().copy(), memory, event.numpy()

    @torch.no_grad()
    def skip(self, memory: Memory, action: np.ndarray) -> Memory:
        """A period went by without a plan, while action (b, a) acted: the next step has no transition to learn from, but still expects the robots
        somewhere."""
        nowhere = torch.full_like(memory.last_s, torch.nan)
        memory = memory._replace(last_s=nowhere, ready=None)
        if (early := self._early) is None:
            return memory
        predict, a = self.model.stepper(memory.phi, self.dtype), torch.as_tensor(action, dtype=torch.float32)
        reached = predict(memory.expected[:, None], a[:, None])[:, 0].clone()
        return memory._replace(warm=early.skip(memory.warm), expected=reached)

    @property
    def _early(self) -> Shooting | None:
        """The planner, where it works ahead."""
        return self.planner if isinstance(self.planner, Shooting) and self.planner.early else None

    def _prepare(self, planner: Shooting, memory: Memory, phi: Phi, s: Tensor) -> Ready:
        """s (b, s): where the plan is expected to begin."""
        rngs, known = _generators(memory.rng), s.isfinite().all(-1)
        predict = self.model.stepper(phi, self.dtype)
        search = planner.prepare(memory.warm, predict, torch.nan_to_num(s), self.cost, rngs, self.terminal)
        return Ready(search, known, tuple(rng.get_state() for rng in rngs))

    @torch.no_grad()
    def step(
        self,
        memory: Memory,
        state: np.ndarray,
        late: bool | None = None,
        pending: Sequence[tuple[float, np.ndarray]] = (),
    ) -> tuple[np.ndarray, Memory, Diagnostics]:
        """state (b, s) -> action (b, a) float32, memory, diagnostics.

        A row of `state` that is not finite, or beyond HUGE, is not learned from and not planned from: the guard holds, then
        relaxes. late overrides the clock, which makes a recorded real-time run replay exactly. pending: (share of a period in
        (0, 1], action (b, a)) of commands that act after this state and before the one that is planned here: the plan starts where phi
        expects the robot to be by then. What is remembered is the state as it was measured. Raises ValueError on a wrong shape.
        """
        start = time.perf_counter()
        b, n = memory.last_s.shape
        if np.shape(state) != (b, n):
            raise ValueError(f"state has shape {np.shape(state)}, wanted ({b}, {n}): {b} robot(s) of {n} numbers")
        s = torch.as_tensor(np.asarray(state), dtype=torch.float32)
        usable = (s.abs() < HUGE).all(-1)  # False where NaN
        s = torch.where(usable[:, None], s, torch.nan_to_num(memory.last_s))
        fresh = usable & memory.last_s.isfinite().all(-1)
        recent = self._remember(memory, s, fresh)
        before, after = self._errors(memory.phi, recent, fresh)

        phi, carry = self.adapter.adapt(self.theta, memory.carry, recent)
        phi, better, sound = self._check(phi, recent)
        # The newest transition counts once, however long the state is unusable; a carry that has diverged starts again.
        carry = _tree(_picker(fresh), carry, memory.carry)
        if not sound.all():
            carry = _tree(_picker(sound), carry, self.adapter.init(self.theta, b))
        adapted = time.perf_counter()

        predict = self.model.stepper(phi, self.dtype)
        begin, early = self._ahead(predict, s, pending), self._early
        if early is None:
            rngs = _generators(memory.rng)
            plan, warm = self.planner.plan(memory.warm, predict, begin, self.cost, rngs, self.terminal)
        else:
            search, rngs = self._searched(early, memory, phi, begin)
            plan, warm = early.plan(memory.warm, predict, begin, self.cost, rngs, self.terminal, search)
        planned = time.perf_counter()
        if late is None:
            late = self.deadline_ms is not None and 1e3 * (planned - start) > self.deadline_ms
        actions, lain, rights = self._righted(memory.lain, s, usable, phi, plan.actions)
        good = (plan.valid | rights) & usable & (not late)
        action, guarded, event = self.guard.step(memory.guard, actions, good)
        event = torch.where((event == OK) & ~better, THETA, event)
        event = torch.where(good & rights, RIGHT, event)

        last_s = torch.where(usable[:, None], s, torch.nan)
        expected = torch.full_like(last_s, torch.nan)
        if early is not None:
            reached = predict(begin[:, None], action[:, None])[:, 0]
            expected = torch.where(usable[:, None], reached, torch.nan)
        memory = Memory(
            recent, carry, phi, warm, guarded, last_s, tuple(rng.get_state() for rng in rngs), expected, lain
        )
        diagnostics = Diagnostics(
            before.numpy(), after.numpy(), plan.cost.numpy(), event.numpy(),
            1e3 * (adapted - start), 1e3 * (planned - adapted), 1e3 * (time.perf_counter() - start),
        )  # fmt: skip
        return action.numpy().copy(), memory, diagnostics  # the caller's own: memory keeps what was sent

    def _righted(
        self, lain: Tensor, s: Tensor, usable: Tensor, phi: Phi, plan: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> plan (b, h, a), for how long each robot has lain (b,), which are being righted (b,). An unusable state says nothing of either."""
        if self.righting is None:
            return plan, lain, torch.zeros_like(usable)
        after, motion = self.righting.step(lain, s, phi.gain)
        rights = self.righting.rights(after) & usable
        # Where the next state is missing the guard holds the motion's action, as it would hold a plan's.
        plan = torch.where(rights[:, None, None], motion[:, None].expand_as(plan), plan)
        return plan, torch.where(usable, after, lain), rights

    def _searched(
        self, planner: Shooting, memory: Memory, phi: Phi, begin: Tensor
    ) -> tuple[Search, list[torch.Generator]]:
        """-> what is prepared of the search that begins at (b, s), and the generators to go on with. A robot that was not expected anywhere is
        prepared from where it is."""
        ready = self.prepare(memory).ready
        if ready is None:
            ready = self._prepare(planner, memory, phi, begin)
        elif not ready.known.all():
            pick, now = _picker(ready.known), self._prepare(planner, memory, phi, begin)
            rng = tuple(a if known else b for known, a, b in zip(ready.known, ready.rng, now.rng, strict=True))
            ready = Ready(_tree(pick, ready.search, now.search), ready.known, rng)
        return ready.search, _generators(ready.rng)

    def _remember(self, memory: Memory, s: Tensor, fresh: Tensor) -> Transitions:
        """Append (last_s, last action, s) where it is a transition; elsewhere the window stays, so nothing is counted twice."""
        old = memory.recent
        last_s = torch.nan_to_num(memory.last_s)
        new = Transitions(last_s, memory.guard.action, s, torch.ones_like(fresh))
        pick = _picker(fresh)
        return Transitions(*(pick(torch.cat((o[:, 1:], n[:, None]), 1), o) for o, n in zip(old, new, strict=True)))

    @torch.no_grad()
    def expected(self, memory: Memory) -> Tensor:
        """-> (b, h + 1, s): where phi expects the robots under the last good plan, from the last state on; NaN where that was not usable."""
        predict = self.model.stepper(memory.phi, torch.float32)
        states = [memory.last_s]
        for a in memory.guard.plan.unbind(1):
            states.append(predict(states[-1][:, None], a[:, None])[:, 0].clone())
        return torch.stack(states, 1)

    def _ahead(
        self, predict: Callable[[Tensor, Tensor], Tensor], s: Tensor, pending: Sequence[tuple[float, np.ndarray]]
    ) -> Tensor:
        """(b, s) -> (b, s) after the pending actions; where the model does not know (not finite), s itself."""
        space, now = self.model.space, s
        for share, action in pending:
            a = torch.as_tensor(action, dtype=torch.float32)
            after = predict(now[:, None], a[:, None])[:, 0].clone()  # the stepper's buffers are used again
            now = after if share == 1 else space.retract(now, share * space.local(now, after))
        return torch.where(now.isfinite().all(-1, keepdim=True), now, s)

    def _errors(self, phi: Phi, recent: Transitions, fresh: Tensor) -> tuple[Tensor, Tensor]:
        newest = Transitions(*(x[:, -1:] for x in recent))
        before = self._mse(as_phi(self.theta), newest).sqrt()
        after = self._mse(phi, newest).sqrt()
        nan = torch.full_like(before, torch.nan)
        return torch.where(fresh, before, nan), torch.where(fresh, after, nan)

    def _mse(self, phi: Phi, t: Transitions) -> Tensor:
        """(b, k, .) -> (b,) mean squared normalised error over the unmasked transitions, the newest counting most."""
        error = self.model.normalised(phi, t.s, t.a).mean(1) - self.model.target(phi, t.s, t.s_next)
        age = torch.arange(t.mask.shape[-1] - 1, -1, -1)
        weight = t.mask * self.discount**age
        return (error.square().mean(-1) * weight).sum(1) / weight.sum(1).clamp_min(1e-9)

    def _check(self, phi: Phi, recent: Transitions) -> tuple[Phi, Tensor, Tensor]:
        """theta's weights for the robots whose phi predicts the context worse than theta does, or not at all.
        -> phi, whether it is the adapter's (b,) bool, whether the adapter's was finite (b,) bool"""
        yes = torch.ones(recent.mask.shape[0], dtype=torch.bool)
        if phi.gain is None and all(a is b for a, b in zip(phi.net.values(), self.theta.net.values(), strict=True)):
            return phi, yes, yes
        error = self._mse(phi, recent)
        better = error <= self._mse(as_phi(self.theta), recent) + ROUNDED  # False where phi is NaN
        kept = phi if better.all() else _pick_phi(better, phi, self.theta, self.model.neutral)
        return kept, better, error.isfinite()


def _generators(states: Sequence[Tensor]) -> list[torch.Generator]:
    rngs = [torch.Generator() for _ in states]
    for rng, state in zip(rngs, states, strict=True):
        rng.set_state(state)
    return rngs


def _picker(keep: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """-> f(x, y): rows of x where keep, of y elsewhere."""

    def pick(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(keep.view(-1, *[1] * (x.dim() - 1)), x, y)

    return pick


def _pick_phi(keep: Tensor, phi: Phi, theta: Theta, neutral: Tensor) -> Phi:
    pick = _picker(keep)
    net = {
        name: w if w.dim() == theta.net[name].dim() else pick(w, theta.net[name].expand_as(w))
        for name, w in phi.net.items()
    }
    return Phi(net, phi.norm, None if phi.gain is None else pick(phi.gain, neutral.expand_as(phi.gain)))


def _tree(f: Callable[[Tensor, Tensor], Tensor], x: Any, y: Any) -> Any:
    """f over the leaves of two equal nests of tuples and dicts; None stays None."""
    if x is None:
        return None
    if isinstance(x, Tensor):
        return f(x, y)
    if isinstance(x, dict):
        return {k: _tree(f, x[k], y[k]) for k in x}
    leaves = [_tree(f, a, b) for a, b in zip(x, y, strict=True)]
    return type(x)(*leaves) if hasattr(x, "_fields") else tuple(leaves)
