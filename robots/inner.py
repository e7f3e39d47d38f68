"""What acts on the quadrotors of a batch in one inner period, in numpy and, where the machine has a C compiler, in C (inner.c).

For one vehicle numpy takes 0.13 ms of an inner period of 1 ms, nearly all of it between its operations; the C takes a hundredth. A simulated robot
has to keep up beside its controller, on one core or two. Both give the same to rounding, for finite states.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from native.build import library
from robots.autopilot import Autopilot, Memory
from robots.bodies import LOAD, QUATERNION, RATES, V_LOAD, V_VEHICLE, VEHICLE
from robots.cable import tension
from robots.space import quaternion_to_rotation

FLAGS = ("-O2", "-ffp-contract=off")
FIELDS = (
    "qpos",
    "qvel",
    "command",
    "air",
    "works",
    "strength",
    "length",
    "reduced",
    "thrust",
    "model",
    "integral",
    "force",
    "torque",
    "pull",
)


class Batch(NamedTuple):
    """b vehicles: where they are, what they are told, and what acts on them. float64; each array lasts until the next `Inner.of`."""

    qpos: np.ndarray  # (b, 14), qvel (b, 12): robots.bodies, read anew every inner period
    qvel: np.ndarray
    command: np.ndarray  # (b, 4) collective thrust [N], body rates [rad/s]
    air: np.ndarray  # (b, 3) its velocity in the world [m/s]
    works: np.ndarray  # (b, 4) 0 for a vehicle whose motors are off, else 1
    strength: np.ndarray  # (b, 4) of each rotor, as a factor
    length: np.ndarray  # (b,) of the cable [m]
    reduced: np.ndarray  # (b,) 1 / (1 / load + 1 / vehicle) [kg], 0 where nothing hangs


Acting = tuple[
    np.ndarray, np.ndarray, np.ndarray
]  # force and torque on the vehicle, force on the load, (b, 3) each, in the world


def written_out(autopilot: Autopilot, batch: Batch, memory: Memory) -> Acting:
    """In numpy. `memory` is overwritten with what it is one inner period later."""
    qpos, qvel, command, air, works, strength, length, reduced = batch
    v, dt = autopilot.vehicle, autopilot.dt
    rot = quaternion_to_rotation(qpos[:, QUATERNION])  # body -> world
    later = autopilot.step(memory, command, qvel[:, RATES])
    memory.thrust[:], memory.model[:], memory.integral[:] = later.thrust * works, later.model, later.integral
    wrench = (memory.thrust * strength) @ v.allocation.T
    body_force = np.array(v.drag_n_s_per_m) * turn(rot.transpose(0, 2, 1), air - qvel[:, V_VEHICLE])
    body_force[:, 2] += wrench[:, 0]
    force, torque = turn(rot, body_force), turn(rot, wrench[:, 1:])
    apart, relative = qpos[:, LOAD] - qpos[:, VEHICLE], qvel[:, V_LOAD] - qvel[:, V_VEHICLE]
    free = apart + dt * (relative - dt / v.mass_kg * force)
    pull = tension(apart, free, length, reduced, dt)
    return force - pull, torque, pull


class Inner:
    """In C where that can be, else in numpy."""

    def __init__(self, autopilot: Autopilot):
        self._autopilot, self._vehicle = autopilot, _vehicle(autopilot)
        _compiled()  # the first on a machine takes a second: here, not in a period

    def of(self, batch: Batch, memory: Memory) -> Callable[[], Acting]:
        """-> what gives, every inner period anew, what acts; `memory` is overwritten, its arrays and those of `batch` must stay where they are.
        The arrays it gives may change with the next call."""
        compiled = _compiled()
        arrays = (*batch, *memory)
        if compiled is None or not all(_usable(x, i < 2) for i, x in enumerate(arrays)):
            return lambda: written_out(self._autopilot, batch, memory)
        b, (per_qpos, per_qvel) = len(batch.qpos), (x.strides[0] // 8 for x in batch[:2])
        arrays = (*arrays, *(np.empty((b, 3)) for _ in range(3)))
        of = _Batch(b, per_qpos, per_qvel, *(x.ctypes.data for x in arrays))
        given = ctypes.byref(self._vehicle), ctypes.byref(of)

        def call() -> Acting:
            compiled.inner(*given)
            force, torque, pull = arrays[-3:]  # from `arrays`, which is to live as long as its addresses are used
            return force, torque, pull

        return call


def turn(rot: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(b, 3, 3), (b, 3) -> (b, 3)."""
    return (rot @ x[:, :, None])[:, :, 0]


def _usable(x: np.ndarray, apart: bool) -> bool:
    """By the C: doubles, each row in one piece; rows themselves may lie `apart`."""
    return x.dtype == np.float64 and (x.flags.c_contiguous or (apart and x.strides[1] == 8))


class _Vehicle(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_double) for name in ("dt", "lag", "mass", "most")),
        *((name, ctypes.c_double * 3) for name in ("inertia", "gain", "integral_gain", "integral_max", "drag")),
        *((name, ctypes.c_double * 16) for name in ("mix", "allocation")),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_long) for name in ("b", "per_qpos", "per_qvel")),
        *((name, ctypes.c_void_p) for name in FIELDS),
    ]


def _vehicle(a: Autopilot) -> _Vehicle:
    v = a.vehicle
    rows = (a.inertia, a.gain, a.integral_gain, a.integral_max, np.array(v.drag_n_s_per_m))
    squares = (a.mix, v.allocation)
    return _Vehicle(
        a.dt, a.lag, v.mass_kg, v.rotor_thrust_max_n, *((ctypes.c_double * 3)(*x) for x in rows),
        *((ctypes.c_double * 16)(*x.ravel()) for x in squares),
    )  # fmt: skip


@cache
def _compiled() -> ctypes.PyDLL | None:
    """None where native.build makes none. It keeps the interpreter's lock: a call takes a microsecond, to get the lock back may take five
    milliseconds."""
    path = library((Path(__file__).parent / "inner.c").read_text(), FLAGS)
    try:
        compiled = None if path is None else ctypes.PyDLL(str(path))
    except OSError:  # in a folder that nothing may be run from
        return None
    if compiled is not None:
        compiled.inner.argtypes, compiled.inner.restype = [ctypes.c_void_p] * 2, None
    return compiled
