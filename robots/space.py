"""State spaces: what the simulator or the sensors report <-> what the network sees.

Rotations live in this file, and in floating_base.c and inner.c for the hot loops. A space offers four maps, all batched over any leading shape:

    features(s)       -> x          the network's input, invariant to whatever the dynamics are invariant to
    directed(s)       -> x          what a task may depend on: features, and where they lack it the heading
    local(s, s_next)  -> delta      the change from s to s_next, in the tangent space at s
    retract(s, delta) -> s_next     its inverse: retract(s, local(s, s')) = s'

(names after Absil, Mahony, Sepulchre 2008, Optimization Algorithms on Matrix Manifolds, ch. 4).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class StateSpace(Protocol):
    """The maps and their sizes."""

    @property
    def n_state(self) -> int: ...
    @property
    def n_feature(self) -> int: ...
    @property
    def n_delta(self) -> int: ...
    @property
    def n_action(self) -> int: ...
    @property
    def native(self) -> Path | None: ...  # features and retract in C, for dynamics.fused
    def features(self, s: Tensor) -> Tensor: ...
    def directed(self, s: Tensor) -> Tensor: ...
    def local(self, s: Tensor, s_next: Tensor) -> Tensor: ...
    def retract(self, s: Tensor, delta: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Euclidean:
    """A state that is a plain vector: features are the state, the delta is the difference."""

    n_state: int
    n_action: int

    native = None

    @property
    def n_feature(self) -> int:
        return self.n_state

    @property
    def n_delta(self) -> int:
        return self.n_state

    def features(self, s: Tensor) -> Tensor:
        return s

    def directed(self, s: Tensor) -> Tensor:
        return s

    def local(self, s: Tensor, s_next: Tensor) -> Tensor:
        return s_next - s

    def retract(self, s: Tensor, delta: Tensor) -> Tensor:
        return s + delta


@dataclass(frozen=True)
class FloatingBase:
    """A free-floating body with n joints.

    State, 15 + 2n numbers:

        p      (3)  base position in the world [m]
        f, u   (6)  world x axis ("forward") and world z axis ("up") in body coordinates: two rows of the
                    rotation matrix, so q and -q are one state and nothing jumps
        q      (n)  joint positions [rad]
        v      (3)  linear velocity in body coordinates [m/s]
        w      (3)  angular velocity in body coordinates [rad/s]
        qd     (n)  joint velocities [rad/s]

    Features, 10 + 2n numbers: height, u, q, v, w, qd. World x, y and heading are left out, because on flat ground
    the dynamics do not depend on them.

    Delta, 12 + 2n numbers: displacement in body coordinates [m], rotation vector in body coordinates [rad], change
    of q, v, w, qd.
    """

    n_joints: int
    n_action: int

    native = Path(__file__).with_name("floating_base.c")

    @property
    def n_state(self) -> int:
        return 15 + 2 * self.n_joints

    @property
    def n_feature(self) -> int:
        return 10 + 2 * self.n_joints

    @property
    def n_delta(self) -> int:
        return 12 + 2 * self.n_joints

    @property
    def velocity(self) -> tuple[slice, slice]:
        """Where the state holds v and w."""
        n = self.n_joints
        return slice(9 + n, 12 + n), slice(12 + n, 15 + n)

    def features(self, s: Tensor) -> Tensor:
        return torch.cat((s[..., 2:3], s[..., 6:]), -1)

    def directed(self, s: Tensor) -> Tensor:
        """(*b, s) -> (*b, 13 + 2n): features and f, which is what a task that knows the world's directions, but no place in it, depends on."""
        return torch.cat((s[..., 2:3], s[..., 6:], s[..., 3:6]), -1)

    def local(self, s: Tensor, s_next: Tensor) -> Tensor:
        rot, rot_next = rotation(s), rotation(s_next)
        moved = (rot.mT @ (s_next[..., :3] - s[..., :3])[..., None])[..., 0]
        turned = rotation_log(rot.mT @ rot_next)
        return torch.cat((moved, turned, s_next[..., 9:] - s[..., 9:]), -1)

    def retract(self, s: Tensor, delta: Tensor) -> Tensor:
        """Rodrigues' formula keeps f and u orthonormal to rounding; it does not repair rows that were not. Components come
        first in memory (the result is a view), because the planner's hot loop then works on whole contiguous rows."""
        s, delta = s.movedim(-1, 0), delta.movedim(-1, 0)
        (p, f, u, rest), (moved, turned, change) = s.tensor_split((3, 6, 9)), delta.tensor_split((3, 6))
        rot = torch.stack((f, torch.linalg.cross(u, f, dim=0), u))
        angle = turned.square().sum(0).add(1e-24).sqrt()  # the constant keeps the gradient finite at no rotation
        axis, cos = turned / angle, angle.cos()
        sin_axis, versin_axis = angle.sin() * axis, axis - cos * axis

        def turn(r: Tensor) -> Tensor:  # R' = R exp(w^), so a row r becomes exp(-w^) r
            return torch.addcmul(cos * r - torch.linalg.cross(sin_axis, r, dim=0), (axis * r).sum(0), versin_axis)

        return torch.cat((p + (rot * moved).sum(1), turn(f), turn(u), rest + change)).movedim(0, -1)

    def from_mujoco(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """(*b, 7 + n), (*b, 6 + n) -> (*b, 15 + 2n). MuJoCo's free joint: world-frame linear velocity, body-frame angular
        velocity, quaternion w first."""
        rot = quaternion_to_rotation(qpos[..., 3:7])  # body -> world
        v = np.einsum("...ij,...i->...j", rot, qvel[..., :3])
        return np.concatenate(
            (qpos[..., :3], rot[..., 0, :], rot[..., 2, :], qpos[..., 7:], v, qvel[..., 3:6], qvel[..., 6:]), -1
        )

    def to_mujoco(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of from_mujoco, up to the quaternion's sign (its scalar part is made non-negative)."""
        n = self.n_joints
        f, u = s[..., 3:6], s[..., 6:9]
        rot = np.stack((f, np.cross(u, f), u), -2)
        v = np.einsum("...ij,...j->...i", rot, s[..., 9 + n : 12 + n])
        qpos = np.concatenate((s[..., :3], rotation_to_quaternion(rot), s[..., 9 : 9 + n]), -1)
        qvel = np.concatenate((v, s[..., 12 + n : 15 + n], s[..., 15 + n :]), -1)
        return qpos, qvel


@dataclass(frozen=True)
class Flying:
    """A free-flying body that commands its collective thrust, with or without sight of a load on a cable.

    State, 16 numbers, 22 with `load`:

        p      (3)  position in the world [m]
        f, u   (6)  world x axis and world z axis in body coordinates, as in FloatingBase
        v      (3)  linear velocity in body coordinates [m/s]
        w      (3)  angular velocity in body coordinates [rad/s]
        T      (1)  collective thrust that the rotors would give by now, as specified, to the commands so far [N]: known from the
                    commands, not measured. Without it the rotors' lag would be a memory that the state lacks
        r      (3)  load minus vehicle position, in body coordinates [m]; 0 without a load
        rd     (3)  load minus vehicle velocity, in body coordinates [m/s]; 0 without a load

    Features, 10 or 16 numbers: u, v, w, T, r, rd. Position and heading are left out: in the air the dynamics do not depend on them.

    Delta, 13 or 19 numbers: displacement in body coordinates [m], rotation vector in body coordinates [rad], change of the rest.
    """

    load: bool
    n_action: int = 4

    native = None

    @property
    def n_state(self) -> int:
        return 22 if self.load else 16

    @property
    def n_feature(self) -> int:
        return self.n_state - 6

    @property
    def n_delta(self) -> int:
        return self.n_state - 3

    def features(self, s: Tensor) -> Tensor:
        return s[..., 6:]

    # What follows the base's nine numbers is a plain vector to FloatingBase too.
    def local(self, s: Tensor, s_next: Tensor) -> Tensor:
        return _BASE.local(s, s_next)

    def retract(self, s: Tensor, delta: Tensor) -> Tensor:
        return _BASE.retract(s, delta)


_BASE = FloatingBase(n_joints=0, n_action=0)


def rotation(s: Tensor) -> Tensor:
    """(*b, >=9) floating-base state -> (*b, 3, 3) body -> world rotation. Its rows are the world axes in body coordinates."""
    f, u = s[..., 3:6], s[..., 6:9]
    return torch.stack((f, torch.linalg.cross(u, f), u), -2)


def rotation_log(rot: Tensor) -> Tensor:
    """(*b, 3, 3) -> (*b, 3) rotation vector [rad], angle in [0, pi). Near pi the axis is ill-conditioned; one control period
    of a legged robot turns far less."""
    vee = torch.stack(
        (rot[..., 2, 1] - rot[..., 1, 2], rot[..., 0, 2] - rot[..., 2, 0], rot[..., 1, 0] - rot[..., 0, 1]), -1
    )
    sin = vee.norm(dim=-1) / 2
    cos = (rot.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    angle = torch.atan2(sin, cos)
    scale = torch.where(sin > 1e-6, angle / (2 * sin.clamp_min(1e-12)), torch.full_like(sin, 0.5))
    return vee * scale[..., None]


def quaternion_to_rotation(q: np.ndarray) -> np.ndarray:
    """(*b, 4), w first, any length above zero -> (*b, 3, 3)."""
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rot = np.empty((*w.shape, 3, 3))  # filled by element: on few robots quicker than stacking
    rot[..., 0, 0] = 1 - 2 * (y * y + z * z)
    rot[..., 0, 1] = 2 * (x * y - w * z)
    rot[..., 0, 2] = 2 * (x * z + w * y)
    rot[..., 1, 0] = 2 * (x * y + w * z)
    rot[..., 1, 1] = 1 - 2 * (x * x + z * z)
    rot[..., 1, 2] = 2 * (y * z - w * x)
    rot[..., 2, 0] = 2 * (x * z - w * y)
    rot[..., 2, 1] = 2 * (y * z + w * x)
    rot[..., 2, 2] = 1 - 2 * (x * x + y * y)
    return rot


def rotation_to_quaternion(rot: np.ndarray) -> np.ndarray:
    """(*b, 3, 3) -> (*b, 4), w first and non-negative: the dominant eigenvector of a symmetric matrix, so no branch is
    ill-conditioned (Bar-Itzhack 2000)."""
    m = np.moveaxis(rot, (-2, -1), (0, 1))
    k = np.empty((*rot.shape[:-2], 4, 4))
    k[..., 0, 0] = m[0, 0] + m[1, 1] + m[2, 2]
    k[..., 0, 1] = k[..., 1, 0] = m[2, 1] - m[1, 2]
    k[..., 0, 2] = k[..., 2, 0] = m[0, 2] - m[2, 0]
    k[..., 0, 3] = k[..., 3, 0] = m[1, 0] - m[0, 1]
    k[..., 1, 1] = m[0, 0] - m[1, 1] - m[2, 2]
    k[..., 1, 2] = k[..., 2, 1] = m[1, 0] + m[0, 1]
    k[..., 1, 3] = k[..., 3, 1] = m[0, 2] + m[2, 0]
    k[..., 2, 2] = m[1, 1] - m[0, 0] - m[2, 2]
    k[..., 2, 3] = k[..., 3, 2] = m[2, 1] + m[1, 2]
    k[..., 3, 3] = m[2, 2] - m[0, 0] - m[1, 1]
    q = np.linalg.eigh(k)[1][..., -1]
    return np.where(q[..., :1] < 0, -q, q)
