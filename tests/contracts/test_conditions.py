"""Every kind of condition changes the ant's physics in the way its name says, and in no other."""

import math
import re

import mujoco
import numpy as np
import pytest

from robots import ant
from robots.ant import LEGS, Ant
from robots.condition import HEALTHY, Condition, motors_of_leg, parse
from robots.mujoco import FULL

KNEES = np.radians([0, 50, 0, -50, 0, -50, 0, 50])  # mid-range [rad]; at 0, where gymnasium starts, the limits push


def condition(text: str) -> Condition:
    return parse(text).at(0)


def model_of(text: str) -> mujoco.MjModel:
    model = ant.load()
    ant.alter(model, condition(text))
    return model


def pose(robot: Ant, height: float = 0.75) -> np.ndarray:
    """A raw state (n_raw): upright, knees bent, still."""
    return robot.physics.join(np.concatenate(([0, 0, height, 1, 0, 0, 0], KNEES)), np.zeros(14))


def run(text: str, actions: np.ndarray, raw: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """(t, 8) -> raw states (t, n_raw) of one ant under a condition."""
    robot = Ant(threads=1)
    robot.reset([condition(text)], [seed])
    return robot.physics.run(robot.raw if raw is None else raw[None], actions[None], robot.conditions)[0]


def random_actions(steps: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 8))


def changed_fields(text: str) -> set[str]:
    """The fields of the MuJoCo model in which a condition differs from healthy, less those that mj_setConst derives."""
    healthy, model = ant.load(), model_of(text)
    derived = re.compile("subtreemass|invweight0|dof_M0|acc0|poscom0|aabb|rbound|sameframe|dof_length")
    arrays = [name for name in dir(healthy) if isinstance(getattr(healthy, name), np.ndarray)]
    differing = {name for name in arrays if not np.array_equal(getattr(healthy, name), getattr(model, name))}
    gravity = set() if np.array_equal(healthy.opt.gravity, model.opt.gravity) else {"gravity"}
    return {name for name in differing if not derived.search(name)} | gravity


@pytest.mark.parametrize(
    "text, fields",
    [
        ("healthy", set()),
        ("leg:3", set()),
        ("reverse:0", set()),
        ("weak:0.3", set()),
        ("leg-short:1", {"geom_size", "geom_pos"}),
        ("lock:5", {"dof_frictionloss", "dof_solimp"}),
        ("mass:2", {"body_mass", "body_inertia"}),
        ("friction:0.5", {"geom_friction"}),
        ("slope:10", {"gravity"}),
    ],
)
def test_a_condition_changes_nothing_else(text, fields):
    assert changed_fields(text) == fields


@pytest.mark.parametrize("leg", range(4))
def test_a_dead_leg_gets_no_torque_whatever_the_action(leg):
    motors = list(motors_of_leg(leg))
    actions, other = random_actions(), random_actions()
    other[:, motors] = random_actions(seed=1)[:, motors]
    dead = run(f"leg:{leg}", actions)
    np.testing.assert_array_equal(dead, run(f"leg:{leg}", other))
    assert np.abs(dead - run("healthy", actions)).max() > 0.01
    off = actions.copy()
    off[:, motors] = 0
    np.testing.assert_array_equal(dead, run("healthy", off))


@pytest.mark.parametrize("leg", range(4))
def test_a_legs_motors_drive_the_joints_that_carry_its_geoms(leg):
    model = ant.load()
    driven = [model.jnt_bodyid[model.actuator_trnid[motor, 0]] for motor in motors_of_leg(leg)]
    assert driven == [model.geom_bodyid[model.geom(name).id] for name in LEGS[leg]]


@pytest.mark.parametrize("motor", range(8))
def test_a_reversed_motor_is_a_healthy_one_told_the_opposite(motor):
    actions = random_actions()
    opposite = actions.copy()
    opposite[:, motor] *= -1
    np.testing.assert_array_equal(run(f"reverse:{motor}", opposite), run("healthy", actions))
    assert np.abs(run(f"reverse:{motor}", actions) - run("healthy", actions)).max() > 0.01


def test_a_weak_leg_is_a_healthy_one_told_less():
    actions = random_actions()
    scaled = actions.copy()
    scaled[:, list(motors_of_leg(1))] *= 0.3
    np.testing.assert_array_equal(run("weak:0.3:1", actions), run("healthy", scaled))
    np.testing.assert_array_equal(run("weak:0.3", actions), run("healthy", actions * 0.3))


@pytest.mark.parametrize("joint", range(8))
def test_a_locked_joint_stays_where_it_is_and_the_others_move(joint):
    raw, actions = pose(Ant(threads=1)), random_actions(50)
    q = run(f"lock:{joint}", actions, raw)[:, 8:16]  # raw: time, 7 numbers of the torso, 8 joints
    moved = np.abs(q - KNEES).max(0)
    free = np.abs(run("healthy", actions, raw)[:, 8:16] - KNEES).max(0)
    assert moved[joint] < 1e-3  # [rad]
    assert (np.delete(moved, joint) > 0.3).all() and (free > 0.3).all()


def test_a_joint_that_locks_in_motion_stops():
    raw = run("healthy", random_actions(20), pose(Ant(threads=1)))[-1]
    locked, free = (run(text, random_actions(20, seed=1), raw)[1:, 8 + 2] for text in ("lock:2", "healthy"))
    assert np.ptp(locked) < 0.005  # [rad]; it stopped beyond its limit, which pushes it back slowly
    assert np.ptp(free) > 0.3


@pytest.mark.parametrize("leg", range(4))
def test_a_short_leg_has_half_the_size_and_no_torque(leg):
    healthy, short = ant.load(), model_of(f"leg-short:{leg}")
    upper, foot = (healthy.geom(name).id for name in LEGS[leg])
    for geom in range(healthy.ngeom):
        factor = 0.5 if geom in (upper, foot) else 1.0
        np.testing.assert_array_equal(short.geom_size[geom], factor * healthy.geom_size[geom])
    # A foot of half the length still starts at its knee: its centre is half as far from it, in model and world.
    np.testing.assert_allclose(short.geom_pos[foot], healthy.geom_pos[foot] / 2)
    np.testing.assert_allclose(from_knee(short, foot), from_knee(healthy, foot) / 2)
    assert condition(f"leg-short:{leg}").gain == condition(f"leg:{leg}").gain


def from_knee(model: mujoco.MjModel, foot: int) -> np.ndarray:
    """(3,) centre of a foot's geom relative to its joint, in the world [m], in the model's zero pose."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data.geom_xpos[foot] - data.xpos[model.geom_bodyid[foot]]


def test_mass_is_the_torsos_and_shows_in_the_weight_on_the_ground():
    healthy, heavy = ant.load(), model_of("mass:3")
    torso = healthy.body("torso").id
    gained = heavy.body_mass - healthy.body_mass
    assert gained[torso] == pytest.approx(2 * healthy.body_mass[torso]) and np.count_nonzero(gained) == 1
    np.testing.assert_allclose(heavy.body_inertia[torso], 3 * healthy.body_inertia[torso])
    for text, model in (("healthy", healthy), ("mass:3", heavy)):
        resting = run(text, np.zeros((400, 8)), pose(Ant(threads=1)))[-1]
        assert normal_force(model, resting) == pytest.approx(9.81 * model.body_mass.sum(), rel=1e-3)


def normal_force(model: mujoco.MjModel, raw: np.ndarray) -> float:
    """Sum over the contacts [N]."""
    data = mujoco.MjData(model)
    mujoco.mj_setState(model, data, raw, FULL)
    mujoco.mj_forward(model, data)
    force, total = np.zeros(6), 0.0
    for i in range(data.ncon):
        mujoco.mj_contactForce(model, data, i, force)
        total += force[0]
    return total


def test_a_slippery_ant_slides_further():
    standing = run("healthy", np.zeros((200, 8)), pose(Ant(threads=1)))[-1]
    standing[16] = 2.0  # forward velocity [m/s]
    slid = [run(text, np.zeros((40, 8)), standing)[-1, 1] for text in ("friction:0.1", "friction:0.3", "healthy")]
    slid.append(run("friction:3", np.zeros((40, 8)), standing)[-1, 1])
    assert slid[0] > 1.5 * slid[1] > 2.25 * slid[2] > 2.25 * 1.5 * slid[3] > 0


@pytest.mark.parametrize("degrees", [-30, -5, 0, 10, 30])
def test_on_a_slope_the_ant_falls_along_the_tilted_gravity(degrees):
    robot = Ant(threads=1)
    raw = run(f"slope:{degrees}", np.zeros((4, 8)), pose(robot, height=5.0))
    t = robot.dt * np.arange(1, 5)[:, None]
    down = 9.81 * np.array([-math.sin(math.radians(degrees)), 0, -math.cos(math.radians(degrees))])
    _, qvel = robot.physics.split(raw)
    np.testing.assert_allclose(qvel[:, :3], down * t, atol=1e-9)


def test_a_slippery_slope_cannot_be_stood_on():
    # friction 0.1 holds up to atan(0.1) = 5.7 degrees; uphill is +x, so the ant slides towards -x.
    x = {text: run(text, np.zeros((60, 8)), pose(Ant(threads=1)))[-1, 1] for text in (
        "slope:15+friction:0.1", "slope:-15+friction:0.1", "slope:15",
    )}  # fmt: skip
    assert x["slope:15+friction:0.1"] < -1 < 1 < x["slope:-15+friction:0.1"]
    assert abs(x["slope:15"]) < 0.3


def test_healthy_is_the_default_condition():
    assert condition("healthy") == HEALTHY == Condition()
