"""Laws of the quadrotor on both engines: determinism, independence within a batch, conditions that leave no trace, crashes, states."""

import math

import numpy as np
import pytest
import torch
from airborne import ENGINES, V, condition, flying, manoeuvre, play

from robots.bodies import LOAD, VEHICLE, radius
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import NONE, parse
from robots.vehicle import VehicleError

EVERY_KIND = ("none", "payload:0.4:0.6", "wind:4:30", "gust:2", "rotor:2:0.8", "inertia:1.5")
CONDITIONS = [condition(text) for text in EVERY_KIND]


@pytest.mark.parametrize("engine", ENGINES)
def test_same_seed_gives_the_same_episode_and_another_seed_another(engine):
    actions = manoeuvre(6, 30)
    first, again, other = (
        play(flying(CONDITIONS, engine, seeds=range(k, k + 6)), actions) for k in (0, 0, 100)
    )  # fmt: skip
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first - other).max((1, 2)) > 0.01).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_batched_stepping_equals_one_by_one(engine):
    actions = manoeuvre(6, 30)
    batched = play(flying(CONDITIONS, engine), actions)
    for i, c in enumerate(CONDITIONS):
        alone = play(flying([c], engine, seeds=[i]), actions[i : i + 1])[0]
        # numpy's products of one row round differently from those of several.
        np.testing.assert_allclose(alone, batched[i], atol=1e-11, err_msg=EVERY_KIND[i])


@pytest.mark.parametrize("engine", ENGINES)
def test_conditions_act_while_they_hold_and_leave_no_trace(engine):
    schedules = [parse(f"{text}@10+none@20", V) for text in EVERY_KIND]
    robot, untouched = (flying([NONE] * 6, engine, seen=False) for _ in range(2))
    actions = manoeuvre(6, 30)
    states = []
    for t in range(30):
        robot.conditions = [s.at(t) for s in schedules]
        states.append(robot.step(actions[:, t]))
        if t == 19:
            qpos, qvel, memory = robot.bodies.qpos.copy(), robot.bodies.qvel.copy(), [x.copy() for x in robot._memory]
    wanted = play(untouched, actions[:, :20])
    np.testing.assert_array_equal(wanted[:, :10], np.stack(states[:10], 1))
    changed = np.abs(wanted[:, 10:] - np.stack(states[10:20], 1)).max((1, 2))
    assert changed[0] == 0 and (changed[1:] > 1e-4).all(), dict(zip(EVERY_KIND, changed, strict=True))
    # From where the condition left them, vehicles that never had one fly on alike.
    for i in range(6):
        untouched.bodies.place(i, qpos[i], qvel[i])
    for carried, taken in zip(untouched._memory, memory, strict=True):
        carried[:] = taken
    np.testing.assert_allclose(play(untouched, actions[:, 20:]), np.stack(states[20:], 1), atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_restart_touches_only_the_robots_named(engine):
    robot = flying(CONDITIONS, engine)
    start, before = robot.state(), play(robot, manoeuvre(6, 5))[:, -1]
    robot.crashed[2] = True
    after = robot.restart(np.array([2, 4]), [2, 77])
    untouched = [0, 1, 3, 5]
    np.testing.assert_array_equal(after[untouched], before[untouched])
    np.testing.assert_array_equal(after[2], start[2])
    assert np.abs(after[4] - start[4]).max() > 0.01 and not robot.crashed.any()


@pytest.mark.parametrize("engine", ENGINES)
def test_crashes_are_counted_and_stay(engine):
    robot = flying([NONE] * 4, engine, seen=False)
    still = np.zeros(12)
    up, over = [1, 0, 0, 0], [0.6, 0.8, 0, 0]  # over: turned by 106 degrees
    for i, (where, turned) in enumerate((((0, 0, 0.1), up), ((0, 0, 5), over), ((9.95, 0, 5), up), ((0, 0, 5), up))):
        robot.bodies.place(i, np.array([*where, *turned, 5, 5, 0.1, 1, 0, 0, 0], float), still)
    robot.bodies.qvel[2, 0] = 1.0
    robot.bodies.place(2, robot.bodies.qpos[2].copy(), robot.bodies.qvel[2].copy())
    actions = np.tile(V.action(np.array([0.98 * V.hover_thrust_n, 0, 0, 0])), (4, 1))
    down = np.tile(V.action(np.zeros(4)), (4, 1))
    assert not robot.crashed.any()
    for t in range(60):
        robot.step(down if t < 20 else actions)
        if t == 0:
            assert robot.crashed.tolist() == [False, True, False, False]
    assert robot.crashed.tolist() == [True, True, True, False]
    # Motors cut: the last one still flies, the first lies on the ground.
    assert robot.bodies.qpos[0, 2] == pytest.approx(radius(V), abs=5e-3)
    assert robot.bodies.qvel[1, 2] < -4 and abs(robot.bodies.qvel[3, 2]) < 3


@pytest.mark.parametrize("seen", [False, True])
def test_the_state_is_flyings(seen):
    c = condition("payload:0.4:0.6")
    robot = flying([c] * 3, "mujoco", seen=seen)
    states = torch.as_tensor(play(robot, manoeuvre(3, 20, carried=0.4)))
    space = robot.space
    assert states.shape == (3, 20, space.n_state) and space.n_action == 4
    assert space.features(states).shape == (3, 20, space.n_feature)
    delta = space.local(states[:, :-1], states[:, 1:])
    assert delta.shape[-1] == space.n_delta
    torch.testing.assert_close(space.retract(states[:, :-1], delta), states[:, 1:], atol=1e-9, rtol=0)
    # Another place and heading: same features.
    turned, angle = states.clone(), 0.7
    rot = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    ).double()
    rows = torch.stack((states[..., 3:6], torch.linalg.cross(states[..., 6:9], states[..., 3:6]), states[..., 6:9]), -2)
    turned[..., 3:6], turned[..., :3] = (rot @ rows)[..., 0, :], states[..., :3] + 2
    torch.testing.assert_close(space.features(turned), space.features(states))
    torch.testing.assert_close(space.local(turned[:, :-1], turned[:, 1:])[..., 3:], delta[..., 3:], atol=1e-9, rtol=0)
    if seen:
        rows = rows.numpy()
        apart = np.einsum("...ji,...j->...i", rows[:, -1], robot.bodies.qpos[:, LOAD] - robot.bodies.qpos[:, VEHICLE])
        np.testing.assert_allclose(states[:, -1, 16:19], apart, atol=1e-9)


def test_what_the_payload_weighs_does_not_show_at_the_start():
    unseen = [flying([condition(text)], "mujoco", seen=False).state() for text in ("none", "payload:0.4:0.6")]
    np.testing.assert_array_equal(*unseen)


def test_bad_use_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="unknown engine 'gazebo'; valid: mujoco, pybullet"):
        Quadrotor(engine="gazebo")
    with pytest.raises(VehicleError, match=r"no vehicle '2kg'.*valid: 1kg, 80g"):
        Quadrotor("2kg")
    with pytest.raises(RuntimeError, match="call reset first"):
        Quadrotor().state()
    robot = flying([NONE], "mujoco")
    for action in (np.full((1, 4), np.nan), np.zeros((1, 3)), np.zeros((2, 4))):
        with pytest.raises(ValueError, match=r"valid: \(1, 4\) finite numbers"):
            robot.step(action)
