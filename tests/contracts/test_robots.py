"""Laws of every robot: determinism, independence within a batch, reversible conditions, energy, rotations."""

import mujoco
import numpy as np
import pytest
import torch

from robots import ant
from robots.ant import Ant
from robots.condition import HEALTHY, parse
from robots.mujoco import FULL, Physics

ROBOTS = [Ant]
# One entry of every kind: a batch of these holds nine different robots.
EVERY_KIND = (
    "healthy", "leg:3", "leg-short:1", "reverse:0", "weak:0.3:1", "lock:5", "mass:1.5", "friction:0.5", "slope:5",
)  # fmt: skip
CONDITIONS = [parse(text).at(0) for text in EVERY_KIND]
SEEDS = range(len(CONDITIONS))


def random_actions(b: int, steps: int, n_action: int, seed: int = 0) -> np.ndarray:
    """(b, t, a), uniform in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, (b, steps, n_action))


def play(robot: Ant, actions: np.ndarray) -> np.ndarray:
    """(b, t, a) -> states (b, t, s), one step at a time."""
    return np.stack([robot.step(actions[:, t]) for t in range(actions.shape[1])], 1)


def episode(kind: type[Ant], conditions: list, seeds, steps: int = 30, threads: int = 1) -> np.ndarray:
    """-> (b, 1 + steps, s), start included, under the same actions on every call."""
    robot = kind(threads=threads)
    start = robot.reset(conditions, list(seeds))
    actions = random_actions(len(start), steps, robot.space.n_action)
    return np.concatenate((start[:, None], play(robot, actions)), 1)


@pytest.mark.parametrize("kind", ROBOTS)
def test_same_seed_gives_the_same_episode(kind):
    first, again = episode(kind, CONDITIONS, SEEDS), episode(kind, CONDITIONS, SEEDS)
    np.testing.assert_array_equal(first, again)
    other = episode(kind, CONDITIONS, [seed + 100 for seed in SEEDS])
    assert (np.abs(other[:, 0] - first[:, 0]).max(1) > 0.01).all()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ROBOTS)
def test_batched_stepping_equals_one_by_one(kind, threads):
    batched = episode(kind, CONDITIONS, SEEDS, threads=threads)
    actions = random_actions(len(CONDITIONS), 30, kind.space.n_action)
    for i, condition in enumerate(CONDITIONS):
        robot = kind(threads=1)
        robot.reset([condition], [i])
        np.testing.assert_array_equal(play(robot, actions[i : i + 1])[0], batched[i, 1:], err_msg=EVERY_KIND[i])


@pytest.mark.parametrize("kind", ROBOTS)
def test_a_rollout_is_its_steps(kind):
    # Up to rounding: inside one rollout MuJoCo's solver starts from the last step's forces, from zero between steps.
    robot = kind(threads=1)
    robot.reset(CONDITIONS, SEEDS)
    actions = random_actions(len(CONDITIONS), 10, robot.space.n_action)
    rolled, end = robot.rollout(actions), robot.state()
    np.testing.assert_array_equal(rolled[:, -1], end)
    robot.reset(CONDITIONS, SEEDS)
    np.testing.assert_allclose(play(robot, actions), rolled, atol=1e-9)


def test_healthy_is_no_condition():
    # The unaltered model, stepped by MuJoCo alone.
    robot = Ant(threads=1)
    robot.reset([parse("healthy").at(0)] * 3, range(3))
    bare = Physics(ant.load, lambda model, condition: None, substeps=5, threads=1)
    actions = random_actions(3, 30, 8)
    raw = robot.raw
    play(robot, actions)
    for t in range(30):
        raw = bare.run(raw, actions[:, t : t + 1], [HEALTHY] * 3)[:, 0]
    np.testing.assert_array_equal(robot.raw, raw)


def test_the_healthy_ant_is_gymnasiums():
    import gymnasium

    theirs = gymnasium.make("Ant-v5").unwrapped
    theirs.reset(seed=0)
    robot = Ant(threads=1)
    robot.reset([HEALTHY], [0])
    theirs.set_state(*robot.physics.split(robot.raw[0]))
    assert theirs.dt == pytest.approx(robot.dt) and robot.physics.dt == pytest.approx(robot.dt)
    for action in random_actions(1, 30, 8)[0]:
        theirs.data.qacc_warmstart[:] = 0  # as ours, which keeps robots in a batch independent
        theirs.do_simulation(action, theirs.frame_skip)
        robot.step(action[None])
        qpos, qvel = robot.physics.split(robot.raw[0])
        np.testing.assert_allclose(qpos, theirs.data.qpos, atol=1e-9)
        np.testing.assert_allclose(qvel, theirs.data.qvel, atol=1e-8)


@pytest.mark.parametrize("kind", ROBOTS)
def test_a_repaired_robot_is_a_healthy_one(kind):
    schedules = [parse(f"{text}@10+healthy@20") for text in EVERY_KIND]
    robot = kind(threads=1)
    robot.reset([s.at(0) for s in schedules], SEEDS)
    actions = random_actions(len(schedules), 30, robot.space.n_action)
    states = []
    at_onset = at_repair = robot.raw
    for t in range(30):
        at_onset = robot.raw if t == 10 else at_onset
        at_repair = robot.raw if t == 20 else at_repair
        robot.conditions = [s.at(t) for s in schedules]
        states.append(robot.step(actions[:, t]))
    never_broken = kind(threads=1)
    never_broken.reset([HEALTHY] * len(schedules), SEEDS)
    np.testing.assert_array_equal(play(never_broken, actions[:, :10]), np.stack(states[:10], 1))
    np.testing.assert_array_equal(never_broken.raw, at_onset)
    broken = np.abs(play(never_broken, actions[:, 10:20]) - np.stack(states[10:20], 1)).max((1, 2))
    assert broken[0] == 0 and (broken[1:] > 1e-4).all(), dict(zip(EVERY_KIND, broken, strict=True))
    never_broken.raw = at_repair
    np.testing.assert_array_equal(play(never_broken, actions[:, 20:]), np.stack(states[20:], 1))


@pytest.mark.parametrize("kind", ROBOTS)
def test_restart_touches_only_the_robots_named(kind):
    robot = kind(threads=1)
    start = robot.reset(CONDITIONS, SEEDS)
    before = play(robot, random_actions(len(CONDITIONS), 5, robot.space.n_action))[:, -1]
    after = robot.restart(np.array([2, 4]), [2, 77])
    untouched = [i for i in SEEDS if i not in (2, 4)]
    np.testing.assert_array_equal(after[untouched], before[untouched])
    np.testing.assert_array_equal(after[2], start[2])
    assert np.abs(after[4] - start[4]).max() > 0.01
    assert robot.conditions == CONDITIONS


@pytest.mark.parametrize("kind", ROBOTS)
def test_rotations_stay_rotations(kind):
    states = torch.as_tensor(episode(kind, CONDITIONS, SEEDS))
    space = kind.space
    delta = space.local(states[:, :-1], states[:, 1:])
    for s in (states, space.retract(states[:, :-1], delta), space.retract(states.float()[:, :-1], delta.float())):
        f, u = s[..., 3:6].double(), s[..., 6:9].double()
        tolerance = 1e-12 if s.dtype == torch.float64 else 1e-6
        torch.testing.assert_close(f.norm(dim=-1), torch.ones(f.shape[:-1]).double(), atol=tolerance, rtol=0)
        torch.testing.assert_close(u.norm(dim=-1), torch.ones(f.shape[:-1]).double(), atol=tolerance, rtol=0)
        torch.testing.assert_close((f * u).sum(-1), torch.zeros(f.shape[:-1]).double(), atol=tolerance, rtol=0)
    torch.testing.assert_close(space.retract(states[:, :-1], delta), states[:, 1:], atol=1e-9, rtol=0)


def mechanical_energy(raw: np.ndarray) -> np.ndarray:
    """(t, n_raw) of healthy ants -> potential, kinetic (t, 2) [J]."""
    model = ant.load()
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
    data = mujoco.MjData(model)
    energy = []
    for state in raw:
        mujoco.mj_setState(model, data, state, FULL)
        mujoco.mj_forward(model, data)
        energy.append(data.energy.copy())
    return np.array(energy)


def test_with_the_motors_off_energy_is_lost_and_the_ant_comes_to_rest():
    # Knees bent at 50 degrees: gymnasium's own start is outside the knees' limits, whose springs would push energy in.
    robot, rng = Ant(threads=1), np.random.default_rng(0)
    robot.reset([HEALTHY] * 3, range(3))
    knees = np.radians([0, 50, 0, -50, 0, -50, 0, 50])
    qpos = np.concatenate((np.zeros((3, 7)), knees + rng.uniform(-0.3, 0.3, (3, 8))), 1)
    qpos[:, 2:4] = np.array([[1.0, 1.0], [1.5, 1.0], [2.5, 1.0]])  # height [m], scalar part of the quaternion
    start = robot.physics.join(qpos, rng.normal(0, 0.5, (3, 14)))
    # 35 s: its legs weigh little against their dampers and sag slowly.
    raw = robot.physics.run(start, np.zeros((3, 700, 8)), robot.conditions)
    for i in range(3):
        energy = mechanical_energy(np.concatenate((start[i : i + 1], raw[i])))
        total = energy.sum(1)
        assert (total <= total[0] + 1e-9).all()
        # Soft contacts store a little at an impact and give it back.
        assert np.diff(total).max() < 0.03 * total[0]
        assert energy[-1, 1] < 1e-6 * total[0]
