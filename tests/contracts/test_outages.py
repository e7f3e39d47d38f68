"""Whatever the loop is fed, and however late it is, a safe action comes out, and nothing is remembered but what was."""

import numpy as np
import pytest
from point import GAINS, SEEDS, START, STEPS, B, drive, each_adapter, leaves, make, move, same

from controller.guard import HOLD, OK, RELAX, THETA

GARBAGE = (np.nan, [np.nan, 0, 0, 0], -np.inf, 1e39, [1e30, 1, -3e38, 0], 1e20, 1e5)  # 1e39 is infinite in float32


@each_adapter
def test_garbage_gives_a_safe_action_and_leaves_no_trace(name):
    # A robot for each kind, all with a reversed motor, is fed it on and off; the last is not.
    n = len(GARBAGE) + 1
    controller, gains, s = make(name), GAINS[1], np.tile(START[1], (n, 1))
    memory, memory_alone, alone = controller.init(range(n)), controller.init([n - 1]), s[-1:]
    for t in range(30):
        seen, broken = s.copy(), t in (0, 5, 6, 7, 8, 9, 10, 14)
        if broken:
            for i, garbage in enumerate(GARBAGE):
                seen[i] = garbage
        a, memory, said = controller.step(memory, seen)
        assert np.isfinite(a).all() and (np.abs(a) <= 1).all()
        assert ((said.event[:-2] >= HOLD) == broken).all()
        assert np.isin(said.event[-2:], (OK, THETA)).all()  # 1e5 is a state like any other
        assert all(x.abs().max() < 1e6 for x in memory.recent[:3])  # not a word of it is remembered
        s = move(s, a, gains)
        a, memory_alone, _ = controller.step(memory_alone, alone)
        alone = move(alone, a, gains)
    np.testing.assert_allclose(s[-1], alone[0], atol=1e-3)  # it has not noticed the others
    assert memory.recent.mask.all()
    assert all(x.isfinite().all() for x in leaves((memory.phi, memory.carry, memory.recent, memory.warm)))
    if memory.phi.gain is not None:  # adaptation has gone on
        np.testing.assert_allclose(memory.phi.gain, np.tile(gains, (n, 1)), atol=0.4)


def test_relaxing_ends_at_the_safe_action():
    controller = make()
    memory = drive(controller, 3).memory[-1]
    events = []
    for _ in range(30):
        a, memory, said = controller.step(memory, np.full((B, 4), np.nan))
        events.append(said.event[0])
    assert events == [HOLD] * 3 + [RELAX] * 27
    np.testing.assert_allclose(a, 0, atol=1e-3)


@each_adapter
def test_nothing_is_learned_from_an_outage(name):
    controller = make(name)
    memory = drive(controller).memory[-1]
    blind = memory
    for _ in range(5):
        _, blind, said = controller.step(blind, np.full((B, 4), np.nan))
        assert np.isnan(said.error_before).all() and np.isnan(said.error_after).all()
    assert same((blind.recent, blind.carry), (memory.recent, memory.carry))
    _, seeing, said = controller.step(blind, START)  # from nowhere to here: not a transition
    assert same((seeing.recent, seeing.carry), (memory.recent, memory.carry)) and np.isnan(said.error_before).all()
    _, seeing, said = controller.step(seeing, move(START, seeing.guard.action.numpy()))
    assert not same(seeing.recent, memory.recent) and np.isfinite(said.error_before).all()


def test_what_is_remembered_is_what_was_sent_and_what_it_led_to():
    # Also while the guard holds, when the plan's action is not what was sent.
    controller, s = make("frozen"), START
    memory = controller.init(SEEDS)
    for t in range(STEPS):
        a, memory, _ = controller.step(memory, s, late=t % 4 > 1)
        s_next = move(s, a)
        _, seen, _ = controller.step(memory, s_next)
        for remembered, true in zip(seen.recent, (s, a, s_next), strict=False):
            np.testing.assert_array_equal(remembered[:, -1], true.astype(np.float32))
        assert seen.recent.mask.sum(1).tolist() == [min(t + 1, controller.k)] * B
        s = s_next


@pytest.mark.parametrize("how", ["late", "deadline"])
def test_a_late_step_holds(how):
    controller = make("frozen", deadline_ms=1e-6 if how == "deadline" else None)
    memory = drive(make("frozen"), 3).memory[-1]
    plan, s, events = memory.guard.plan, START, []
    for t in range(5):
        a, memory, said = controller.step(memory, s, late=True if how == "late" else None)
        events.append(said.event.tolist())
        if t < 3:
            np.testing.assert_array_equal(a, plan[:, t + 1])
        s = move(s, a)
    assert events == [[HOLD] * B] * 3 + [[RELAX] * B] * 2
    _, _, said = controller.step(memory, s, late=False)  # in time again
    assert said.event.tolist() == [OK] * B


def test_a_state_of_another_shape_is_refused_by_name():
    controller = make("frozen")
    for wrong in (START[0], START[:2], START[:, :3]):
        with pytest.raises(ValueError, match=r"state has shape \(.*\), wanted \(3, 4\)"):
            controller.step(controller.init(SEEDS), wrong)
