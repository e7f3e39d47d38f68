"""A step that is begun before its state is there: the same to the bit, and something to send where no state comes."""

import numpy as np
import torch
from point import SEEDS, START, STEPS, B, each_adapter, make, move, same

from controller.guard import BLIND, HOLD, RELAX
from planners.icem import ICEM

EARLY = ICEM(n_action=2, horizon=7, samples=24, elites=6, iterations=3, ahead=2)


@each_adapter
def test_a_step_is_the_same_whether_or_not_it_was_prepared(name):
    controller = make(name, planner=EARLY)
    plain = prepared = controller.init(SEEDS)
    s = START
    for t in range(STEPS):
        if t == 7:  # a new episode: expected nowhere
            which = np.array([True, False, False])
            plain, prepared = controller.restart(plain, which), controller.restart(prepared, which)
            s = np.where(which[:, None], START, s)
        seen = s.copy()
        if t == 5:
            seen[1] = np.nan
        ready = controller.prepare(prepared)
        assert (ready.ready is None) == (t == 0) and controller.prepare(ready) is ready
        a, plain, said = controller.step(plain, seen)
        b, prepared, told = controller.step(ready, seen)
        assert np.array_equal(a, b) and same(plain, prepared)
        for x, y in zip(said[:4], told[:4], strict=True):
            assert x.shape == (B,) and np.array_equal(x, y, equal_nan=True)
        s = move(s, a)
    assert prepared.ready is None


def test_what_is_prepared_shows_in_the_plan_and_depends_on_no_mate():
    controller = make("frozen", planner=EARLY)
    together, alone = controller.init(SEEDS), [controller.init([seed]) for seed in SEEDS]
    s = START
    for t in range(8):
        seen = s.copy()
        seen[2] = np.nan if t == 4 else seen[2]
        a, together, _ = controller.step(together, seen)
        for i in SEEDS:
            one, alone[i], _ = controller.step(alone[i], seen[i : i + 1])
            np.testing.assert_allclose(one[0], a[i], atol=1e-5)
        s = move(s, a)
    # Expected elsewhere than it is: the same step begins with another search.
    elsewhere = together._replace(expected=together.expected + 1.0)
    assert not np.array_equal(controller.step(together, s)[0], controller.step(elsewhere, s)[0])
    # The model is exact and nothing is damaged in the first robot: it is expected where it comes.
    np.testing.assert_allclose(together.expected[0].numpy(), s[0], atol=1e-4)


def test_where_no_state_comes_the_plan_from_where_it_was_expected_is_sent():
    """It is the plan that the state makes where it comes as expected, and the guard goes on with it."""
    controller = make("frozen", planner=EARLY)
    s, memory = START, controller.init(SEEDS)
    for _ in range(3):
        a, memory, _ = controller.step(memory, s)
        s = move(s, a)
    held = controller.miss(controller.prepare(memory))
    assert (held[2] == HOLD).all() and np.array_equal(held[0], memory.guard.plan[:, 1].numpy())
    ready = controller.foresee(controller.prepare(memory))
    assert controller.foresee(ready) is ready and controller.foresee(memory) is memory
    expected = memory.expected.numpy()
    planned, after, _ = controller.step(ready, expected)
    sent, missed, event = controller.miss(ready)
    assert (event == BLIND).all() and not np.array_equal(sent, held[0])
    np.testing.assert_allclose(sent, planned, atol=1e-5)
    assert missed.ready is None and missed.last_s.isnan().all() and (missed.guard.failures == 1).all()
    again, missed, event = controller.miss(missed)
    assert (event == HOLD).all()
    np.testing.assert_allclose(again, after.guard.plan[:, 1].numpy(), atol=1e-5)
    events = []
    for _ in range(4):
        _, missed, event = controller.miss(missed)
        events.append(int(event[0]))
    assert events == [HOLD, RELAX, RELAX, RELAX]


def test_a_period_without_a_plan_moves_the_expectation_and_the_warm_start():
    controller = make("frozen", planner=EARLY)
    one = np.array([1.0, 1.0])
    s, memory = START, controller.init(SEEDS)
    for _ in range(3):
        a, memory, _ = controller.step(memory, s)
        s = move(s, a, one)
    held = np.full((B, 2), 0.3, np.float32)
    late = controller.skip(controller.prepare(memory), held)
    np.testing.assert_allclose(late.expected.numpy(), move(s, held, one), atol=1e-4)
    assert torch.equal(late.warm.mean[:, :-1], memory.warm.mean[:, 1:]) and late.ready is None
    # It is the next plan's: no transition leads to it, and nothing is learned.
    _, after, _ = controller.step(late, move(s, held, one))
    assert same(after.recent, memory.recent)
