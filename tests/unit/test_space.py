"""The three maps of a state space, checked against each other, against MuJoCo and against rotations known by hand."""

import math

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from robots.ant import Ant
from robots.condition import HEALTHY
from robots.space import (
    Euclidean,
    FloatingBase,
    quaternion_to_rotation,
    rotation,
    rotation_log,
    rotation_to_quaternion,
)

SPACE = FloatingBase(n_joints=8, n_action=8)
SEEDS = range(5)


def random_mujoco(seed: int, b: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """qpos (b, 15), qvel (b, 14), orientations uniform over all rotations."""
    rng = np.random.default_rng(seed)
    qpos, qvel = rng.normal(0, 1, (b, 15)), rng.normal(0, 3, (b, 14))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    return qpos, qvel


def random_states(seed: int, b: int = 200) -> Tensor:
    """(b, 31) float64."""
    return torch.as_tensor(SPACE.from_mujoco(*random_mujoco(seed, b)))


def random_delta(seed: int, b: int = 200, most: float = math.pi - 0.05) -> Tensor:
    """(b, 28) float64, turning by 0 to `most` [rad]."""
    rng = np.random.default_rng(1000 + seed)
    delta = rng.normal(0, 1, (b, SPACE.n_delta))
    axis = delta[:, 3:6] / np.linalg.norm(delta[:, 3:6], axis=1, keepdims=True)
    delta[:, 3:6] = axis * rng.uniform(0, most, (b, 1))
    return torch.as_tensor(delta)


@pytest.mark.parametrize("seed", SEEDS)
def test_retract_undoes_local(seed):
    s, s_next = random_states(seed), SPACE.retract(random_states(seed), random_delta(seed))
    torch.testing.assert_close(SPACE.retract(s, SPACE.local(s, s_next)), s_next, atol=1e-9, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_local_undoes_retract(seed):
    s, delta = random_states(seed), random_delta(seed)
    torch.testing.assert_close(SPACE.local(s, SPACE.retract(s, delta)), delta, atol=1e-9, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_retract_undoes_local_in_single_precision(seed):
    # At most 1 rad: twenty times what the ant turns in a control period.
    s, delta = random_states(seed).float(), random_delta(seed, most=1.0).float()
    torch.testing.assert_close(SPACE.local(s, SPACE.retract(s, delta)), delta, atol=2e-5, rtol=0)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_nothing_moves_by_nothing(dtype, tolerance):
    s, nothing = random_states(0).to(dtype), torch.zeros(200, SPACE.n_delta, dtype=dtype)
    torch.testing.assert_close(SPACE.retract(s, nothing), s, atol=tolerance, rtol=0)
    assert SPACE.local(s, s).abs().max() <= tolerance


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 2e-14), (torch.float32, 1e-5)])
def test_a_horizon_of_retractions_leaves_a_rotation(dtype, tolerance):
    s = random_states(0).to(dtype)
    for seed in range(40):
        s = SPACE.retract(s, 0.1 * random_delta(seed).to(dtype))
    rot = rotation(s).double()
    torch.testing.assert_close(rot @ rot.mT, torch.eye(3).double().expand_as(rot), atol=tolerance, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rot), torch.ones(200).double(), atol=tolerance, rtol=0)


def test_retract_turns_as_mujoco_integrates():
    # The turn is a rotation vector in body coordinates: MuJoCo's quaternion integration of a body-frame velocity.
    (qpos, qvel), delta = random_mujoco(0), torch.zeros(200, SPACE.n_delta, dtype=torch.float64)
    delta[:, 3:6] = torch.as_tensor(qvel[:, 3:6]) * 0.1
    ours = rotation(SPACE.retract(torch.as_tensor(SPACE.from_mujoco(qpos, qvel)), delta)).numpy()
    for quaternion, w in zip(qpos[:, 3:7], qvel[:, 3:6], strict=True):
        mujoco.mju_quatIntegrate(quaternion, w, 0.1)
    np.testing.assert_allclose(ours, quaternion_to_rotation(qpos[:, 3:7]), atol=1e-9)


def test_velocities_are_mujocos_in_the_torsos_own_frame():
    model = Ant(threads=1).physics.model
    data, torso = mujoco.MjData(model), model.body("torso").id
    for qpos, qvel in zip(*random_mujoco(1, b=20), strict=True):
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_forward(model, data)
        theirs = np.zeros(6)  # angular, linear
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, torso, theirs, 1)
        s = SPACE.from_mujoco(qpos, qvel)
        np.testing.assert_allclose(s[17:20], theirs[3:], atol=1e-9)
        np.testing.assert_allclose(s[20:23], theirs[:3], atol=1e-9)
        np.testing.assert_allclose(rotation(torch.as_tensor(s)), data.xmat[torso].reshape(3, 3), atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_to_mujoco_undoes_from_mujoco(seed):
    qpos, qvel = random_mujoco(seed)
    back, velocity = SPACE.to_mujoco(SPACE.from_mujoco(qpos, qvel))
    assert (back[:, 3] >= 0).all()
    back[:, 3:7] *= np.sign((back[:, 3:7] * qpos[:, 3:7]).sum(1, keepdims=True))
    np.testing.assert_allclose(back, qpos, atol=1e-9)
    np.testing.assert_allclose(velocity, qvel, atol=1e-9)


def test_q_and_minus_q_are_one_state():
    qpos, qvel = random_mujoco(0)
    opposite = qpos.copy()
    opposite[:, 3:7] *= -1
    np.testing.assert_array_equal(SPACE.from_mujoco(opposite, qvel), SPACE.from_mujoco(qpos, qvel))


@pytest.mark.parametrize("quaternion", [*np.eye(4), [0, 1, 1, 0], [0, 1, -1, 1], [1, 1e-9, 0, 0], [1e-9, 0, 0, 1]])
def test_no_rotation_is_ill_conditioned_as_a_quaternion(quaternion):
    # Half turns among them, where formulas that divide by the scalar part fail.
    rot = quaternion_to_rotation(np.array(quaternion, float))
    np.testing.assert_allclose(quaternion_to_rotation(rotation_to_quaternion(rot)), rot, atol=1e-9)


def test_quaternions_become_mujocos_matrices():
    for quaternion in random_mujoco(2, b=50)[0][:, 3:7]:
        theirs = np.zeros(9)
        mujoco.mju_quat2Mat(theirs, quaternion)
        np.testing.assert_allclose(quaternion_to_rotation(quaternion).ravel(), theirs, atol=1e-12)


def moved(qpos: np.ndarray, qvel: np.ndarray, heading: float, x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    """The same robots elsewhere: turned about the world's z axis by `heading` [rad], then shifted by x, y [m]."""
    qpos, qvel = qpos.copy(), qvel.copy()
    cos, sin = math.cos(heading), math.sin(heading)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    qpos[:, :3] = qpos[:, :3] @ turn.T + [x, y, 0]
    qvel[:, :3] = qvel[:, :3] @ turn.T
    qpos[:, 3:7] = rotation_to_quaternion(turn @ quaternion_to_rotation(qpos[:, 3:7]))
    return qpos, qvel


@pytest.mark.parametrize("heading", [0.3, math.pi / 4, 2.0, math.pi])
def test_place_and_heading_leave_features_and_deltas_alone(heading):
    qpos, qvel = random_mujoco(0)
    here = torch.as_tensor(SPACE.from_mujoco(qpos, qvel))
    there = torch.as_tensor(SPACE.from_mujoco(*moved(qpos, qvel, heading, 3.0, -2.0)))
    assert (here - there).abs().max() > 0.1
    torch.testing.assert_close(SPACE.features(here), SPACE.features(there), atol=1e-9, rtol=0)
    delta = random_delta(0)
    elsewhere = SPACE.retract(there, delta)
    torch.testing.assert_close(SPACE.features(SPACE.retract(here, delta)), SPACE.features(elsewhere), atol=1e-9, rtol=0)
    torch.testing.assert_close(SPACE.local(there, elsewhere), delta, atol=1e-9, rtol=0)


@pytest.mark.parametrize("heading", [0.3, math.pi / 2, 2.0])
def test_the_true_ant_does_not_know_its_heading_either(heading):
    # What justifies leaving them out of the features: MuJoCo's ant, feet on the ground and sliding.
    robot, rng = Ant(threads=1), np.random.default_rng(0)
    robot.reset([HEALTHY] * 4, range(4))
    robot.rollout(np.zeros((4, 40, 8)))
    robot.rollout(rng.uniform(-0.2, 0.2, (4, 5, 8)))
    qpos, qvel = (x.copy() for x in robot.physics.split(robot.raw))
    qvel[:, 0] += 1.0
    actions = rng.uniform(-0.3, 0.3, (4, 8))
    deltas = []
    for start in ((qpos, qvel), moved(qpos, qvel, heading, 3.0, -2.0)):
        robot.raw = robot.physics.join(*start)
        s = torch.as_tensor(robot.state())
        deltas.append(SPACE.local(s, torch.as_tensor(robot.step(actions))))
    torch.testing.assert_close(deltas[0], deltas[1], atol=1e-9, rtol=0)
    data = mujoco.MjData(robot.physics.model)
    data.qpos[:], data.qvel[:] = qpos[0], qvel[0]
    mujoco.mj_forward(robot.physics.model, data)
    assert data.ncon >= 2  # the friction that could have known the heading was at work


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.3, math.pi / 2, 3.0])
@pytest.mark.parametrize("axis", range(3))
def test_the_log_of_a_turn_about_an_axis_is_its_angle_on_that_axis(axis, angle):
    rot = torch.zeros(3, 3, dtype=torch.float64)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    rot[axis, axis] = 1
    rot[i, i] = rot[j, j] = math.cos(angle)
    rot[j, i], rot[i, j] = math.sin(angle), -math.sin(angle)
    expected = torch.zeros(3, dtype=torch.float64)
    expected[axis] = angle
    torch.testing.assert_close(rotation_log(rot), expected, atol=1e-12, rtol=0)


def test_the_log_of_a_turn_about_a_diagonal():
    # x -> y -> z -> x is a third of a turn about (1, 1, 1).
    rot = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    third = 2 * math.pi / 3 / math.sqrt(3)
    torch.testing.assert_close(rotation_log(rot), torch.full((3,), third, dtype=torch.float64))


def test_sizes():
    s, delta = random_states(0), random_delta(0)
    assert s.shape[-1] == SPACE.n_state == 31
    assert SPACE.features(s).shape[-1] == SPACE.n_feature == 26
    assert SPACE.local(s, s).shape[-1] == delta.shape[-1] == SPACE.n_delta == 28


def test_a_euclidean_space_is_a_vector_space():
    space = Euclidean(n_state=3, n_action=1)
    s, s_next = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).unbind()
    torch.testing.assert_close(space.retract(s, space.local(s, s_next)), s_next)
    assert space.features(s).shape[-1] == space.n_feature and space.local(s, s_next).shape[-1] == space.n_delta
