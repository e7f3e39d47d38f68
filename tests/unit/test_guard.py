"""Laws of the guard: whatever goes in, what comes out is finite, within bounds, and on its way to safety."""

import pytest
import torch
from torch import Tensor

from controller.guard import EVENTS, HOLD, OK, RELAX, Guard, GuardMemory

B, H, A = 4, 6, 3
LOW, HIGH = torch.tensor([-1.0, -0.5, 0.2]), torch.tensor([1.0, 2.0, 0.9])
SAFE = torch.tensor([0.0, 0.5, 0.3])
GUARD = Guard(LOW, HIGH, SAFE, hold=3, relax=0.7)
YES, NO = torch.ones(B, dtype=torch.bool), torch.zeros(B, dtype=torch.bool)


def plans(seed: int = 0, scale: float = 0.2) -> Tensor:
    """(b, h, a) within bounds, every step another."""
    rng = torch.Generator().manual_seed(seed)
    return (SAFE + scale * torch.randn(B, H, A, generator=rng)).clamp(LOW, HIGH)


def inside(action: Tensor) -> bool:
    return bool((action.isfinite() & (action >= LOW) & (action <= HIGH)).all())


def fail(memory: GuardMemory, steps: int) -> tuple[list[Tensor], GuardMemory, list[int]]:
    actions, events = [], []
    for _ in range(steps):
        action, memory, event = GUARD.step(memory, torch.full((B, H, A), torch.nan), NO)
        assert len(set(event.tolist())) == 1
        actions.append(action)
        events.append(int(event[0]))
    return actions, memory, events


GARBAGE = [torch.nan, torch.inf, -torch.inf, 1e30, -3e38, 2.0, -7.0]


@pytest.mark.parametrize("good", [YES, NO, torch.tensor([True, False, True, False])], ids=["good", "bad", "mixed"])
@pytest.mark.parametrize("value", GARBAGE)
def test_whatever_goes_in_what_comes_out_is_finite_and_within_bounds(value, good):
    everywhere, once = torch.full((B, H, A), value), plans()
    once[1, H - 1, 0] = value
    for plan in (everywhere, once):
        memory = GUARD.init(B, H)
        for step in range(12):
            sound = step % 5 == 2  # a good plan now and then
            action, memory, event = GUARD.step(memory, plans(step) if sound else plan, YES if sound else good)
            assert inside(action) and inside(memory.action)
            assert memory.plan.isfinite().all()
            assert all(0 <= code < len(EVENTS) for code in event.tolist())


def test_a_good_plans_first_action_goes_through_clipped():
    plan = plans(scale=3.0) * 2
    action, memory, event = GUARD.step(GUARD.init(B, H), plan, YES)
    assert torch.equal(action, plan[:, 0].clamp(LOW, HIGH)) and (event == OK).all()
    assert (action != plan[:, 0]).any() and torch.equal(memory.action, action)


def test_a_plan_that_is_not_finite_is_not_good_whoever_says_so():
    for step in range(H):  # at any of its steps: it is what would be held
        plan = plans()
        plan[2, step, 1] = torch.nan
        _, _, event = GUARD.step(GUARD.init(B, H), plan, YES)
        assert event.tolist() == [OK, OK, HOLD, OK]


def test_it_holds_the_last_good_plan_then_relaxes_towards_safety():
    plan = plans()
    _, memory, _ = GUARD.step(GUARD.init(B, H), plan, YES)
    actions, _, events = fail(memory, 40)
    assert events == [HOLD] * 3 + [RELAX] * 37
    for t in range(3):
        assert torch.equal(actions[t], plan[:, t + 1])
    previous = actions[2]
    for action in actions[3:]:
        torch.testing.assert_close(action - SAFE, 0.7 * (previous - SAFE), atol=1e-6, rtol=0)
        previous = action
    torch.testing.assert_close(actions[-1], SAFE.expand(B, -1), atol=1e-5, rtol=0)


def test_it_recovers_at_once():
    for failures in (1, 3, 4, 30):
        _, memory, _ = GUARD.step(GUARD.init(B, H), plans(), YES)
        _, memory, _ = fail(memory, failures)
        new = plans(seed=7)
        action, memory, event = GUARD.step(memory, new, YES)
        assert torch.equal(action, new[:, 0]) and (event == OK).all() and (memory.failures == 0).all()
        # And holds the new plan, as long as ever.
        actions, _, events = fail(memory, 4)
        assert torch.equal(actions[0], new[:, 1]) and events == [HOLD] * 3 + [RELAX]


def test_before_the_first_good_plan_it_stays_safe():
    for action in fail(GUARD.init(B, H), 8)[0]:
        assert torch.equal(action, SAFE.expand(B, -1))


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_a_short_plan_is_held_no_longer_than_it_is(horizon):
    plan = plans()[:, :horizon]
    _, memory, _ = GUARD.step(GUARD.init(B, horizon), plan, YES)
    events = []
    for _ in range(5):
        action, memory, event = GUARD.step(memory, plan, NO)
        assert inside(action)
        events.append(int(event[0]))
    assert events == [HOLD] * (horizon - 1) + [RELAX] * (6 - horizon)


def test_robots_are_guarded_one_by_one():
    good = torch.tensor([True, False, True, False])
    memory, alone = GUARD.init(B, H), [GUARD.init(1, H) for _ in range(B)]
    for step in range(10):
        plan, now = plans(step), good if step % 4 else YES
        action, memory, event = GUARD.step(memory, plan, now)
        for i in range(B):
            one, alone[i], what = GUARD.step(alone[i], plan[i : i + 1], now[i : i + 1])
            assert torch.equal(one[0], action[i]) and what[0] == event[i]


def test_it_is_pure():
    _, memory, _ = GUARD.step(GUARD.init(B, H), plans(), YES)
    plan, before = plans(1), [x.clone() for x in memory]
    kept = plan.clone()
    first, again = GUARD.step(memory, plan, NO), GUARD.step(memory, plan, NO)
    assert torch.equal(plan, kept) and all(torch.equal(x, y) for x, y in zip(memory, before, strict=True))
    assert torch.equal(first[0], again[0]) and torch.equal(first[2], again[2])
