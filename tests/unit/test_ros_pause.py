"""A quadrotor's loop that was not active for a moment: what it recorded makes the same commands again."""

import numpy as np

from controller.ros.brains import BRAINS
from controller.ros.controller_config import ControlConfig
from controller.ros.loop import BREAK, FIRST, FOLLOWS, Loop
from controller.ros.replay import redo

DT = 10_000_000  # [ns]


def test_what_acted_before_a_pause_is_nothing_to_it_nor_to_its_replay():
    """A state in motion, so that what acted since the last one counts; after ten periods a pause of five, then a state lost on its way."""
    brain = BRAINS["quadrotor"](ControlConfig(robot="quadrotor"), None)
    loop, rows, states = Loop(brain, 0, 1), [], {}
    rng = np.random.default_rng(0)
    for k in [*range(10), *range(15, 20), *range(21, 25)]:
        if k == 15:
            loop.pause()
        state = brain.rest()
        state[:6] += 0.05 * rng.standard_normal(6)
        states[k * DT] = state
        job = loop.begin(state, k * DT, k * DT, DT // 5)
        rows.append((*loop.finish(job, loop.plan(job), k * DT + DT // 5), job.broken))
    assert [broken for *_, broken in rows] == [FIRST] + [FOLLOWS] * 9 + [FIRST] + [FOLLOWS] * 4 + [BREAK] + [
        FOLLOWS
    ] * 3
    again = Loop(brain, 0, 1)
    memories = {0: again.memory}
    for action, row, _ in rows:
        made = redo(again, row, memories, states)
        assert made is not None and np.array_equal(made, action)
        memories[again.seq] = again.memory
