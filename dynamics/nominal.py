"""The nominal quadrotor, with and without a load on a taut cable: one set of equations, numeric in torch and symbolic in CasADi.

In body coordinates, with w the body rates, u the world's z axis, F the specific force of rotors and drag:

    T' = (T_c - T) / t_rotor       w' = (w_c - w) / t_rate                                first order, as commanded
    p' = R v                       F = (T e3 - D v) / m
    f' = f x w                     u' = u x w
    v' = F - g u + m_load / (m + m_load) c - w x v
    r' = rd - w x r                rd' = -F - c - w x rd
    c  = r (|rd|^2 - r . F) / |r|^2                              what the cable adds, so that |r| stays: its pull over the reduced mass

the load a point mass on a massless cable at the centre of mass (Sreenath, Lee, Kumar 2013, Geometric Control and Differential
Flatness of a Quadrotor UAV with a Cable-Suspended Load, CDC), index-reduced: |r| is kept, so the cable's length is read off the state.
The cable never goes slack here: where r . c < 0 the model has a rod. T and w are solved exactly over a control period, the rest by one
step of RK4, after which f and u are made orthonormal again and r, rd put back onto the cable.

State and action are the robot's: robots.space.Flying, robots.quadrotor. T_c and w_c are Vehicle.command(action).
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import casadi
import torch
from torch import Tensor

from robots.space import Flying
from robots.vehicle import GRAVITY, Vehicle

PRESENT = 1e-3  # [m]; a load nearer than this is none


class Ops(NamedTuple):
    """The few operations on 3-vectors that torch and CasADi spell differently. A scalar is (*b, 1) in torch, 1 x 1 in CasADi."""

    cross: Any
    dot: Any
    sqrt: Any
    where: Any
    join: Any
    vector: Any  # constants -> a vector like the state


class Moving(NamedTuple):
    """What RK4 integrates. Vectors of 3."""

    p: Any
    f: Any
    u: Any
    v: Any
    r: Any
    rd: Any


@dataclass(frozen=True)
class Nominal:
    """The model of a vehicle as specified. load: with a load, seen, of a mass given at every call."""

    vehicle: Vehicle
    load: bool = False

    @property
    def space(self) -> Flying:
        return Flying(load=self.load)

    def predict(self, s: Tensor, a: Tensor, load_mass: Tensor | float = 0.0) -> Tensor:
        """s (*b, 16 or 22), a (*b, 4), load_mass (*b, 1) or one for all [kg] -> s one control period later. Differentiable, and
        batched by broadcasting or torch.func.vmap. A load of 0 at r = 0 is none and stays so."""

        def vector(*constants: float) -> Tensor:
            return torch.tensor(constants, dtype=s.dtype, device=s.device)

        ops = Ops(
            lambda x, y: torch.linalg.cross(*torch.broadcast_tensors(x, y)), lambda x, y: (x * y).sum(-1, keepdim=True),
            torch.sqrt, torch.where, lambda *parts: torch.cat(parts, -1), vector,
        )  # fmt: skip
        parts = torch.split(s, [3, 3, 3, 3, 3, 1, 3, 3] if self.load else [3, 3, 3, 3, 3, 1], -1)
        return _step(ops, self.vehicle, parts, torch.split(a, [1, 3], -1), load_mass)

    def symbolic(self) -> casadi.Function:
        """-> casadi.Function (s, a, load_mass) -> s_next, for one robot, all as columns."""
        s, a = casadi.SX.sym("s", self.space.n_state), casadi.SX.sym("a", 4)
        load_mass = casadi.SX.sym("load_mass")
        ops = Ops(casadi.cross, casadi.dot, casadi.sqrt, casadi.if_else, casadi.vertcat, lambda *x: casadi.DM(list(x)))
        edges = [0, 3, 6, 9, 12, 15, 16, 19, 22] if self.load else [0, 3, 6, 9, 12, 15, 16]
        s_next = _step(ops, self.vehicle, casadi.vertsplit(s, edges), casadi.vertsplit(a, [0, 1, 4]), load_mass)
        name = f"{'slung' if self.load else 'free'}_quadrotor"
        return casadi.Function(name, [s, a, load_mass], [s_next], ["s", "a", "load_mass"], ["s_next"])


def _step(ops: Ops, vehicle: Vehicle, parts: Any, action: Any, load_mass: Any) -> Any:
    """One control period. parts: p, f, u, v, w, T and, with a load, r, rd."""
    p, f, u, v, w, thrust, *load = parts
    zero = 0 * p
    r, rd = load or (zero, zero)
    dt, m, e3 = vehicle.dt, vehicle.mass_kg, ops.vector(0.0, 0.0, 1.0)
    drag = ops.vector(*(d / m for d in vehicle.drag_n_s_per_m))
    scale, offset = vehicle.command_scale.tolist(), vehicle.command_offset.tolist()
    thrust_c = scale[0] * action[0] + offset[0]
    w_c = ops.vector(*scale[1:]) * action[1]
    lag = [math.exp(-dt / 2 / t) for t in vehicle.rate_time_constant_s]
    thrust_lag = math.exp(-dt / 2 / vehicle.rotor_time_constant_s)
    # At the start, in the middle and at the end of the period.
    ws = [w, w_c + ops.vector(*lag) * (w - w_c), w_c + ops.vector(*(x * x for x in lag)) * (w - w_c)]
    thrusts = [thrust, thrust_c + thrust_lag * (thrust - thrust_c), thrust_c + thrust_lag**2 * (thrust - thrust_c)]

    length2 = ops.dot(r, r)
    present = length2 > PRESENT**2
    safe2 = ops.where(present, length2, 1 + 0 * length2)  # no division by zero, also in the gradient
    inverse2 = ops.where(present, 1 / safe2, 0 * safe2)
    share = load_mass / (m + load_mass)

    def derivative(x: Moving, i: int) -> Moving:
        w = ws[i]
        force = thrusts[i] / m * e3 - drag * x.v
        world = ops.cross(x.u, x.f)
        along = ops.join(ops.dot(x.f, x.v), ops.dot(world, x.v), ops.dot(x.u, x.v))
        fall = force - GRAVITY * x.u - ops.cross(w, x.v)
        turned = Moving(along, ops.cross(x.f, w), ops.cross(x.u, w), fall, zero, zero)
        if not load:
            return turned
        pull = (ops.dot(x.rd, x.rd) - ops.dot(x.r, force)) * inverse2 * x.r
        away = -force - pull - ops.cross(w, x.rd)
        return turned._replace(v=fall + share * pull, r=x.rd - ops.cross(w, x.r), rd=away)

    x = Moving(p, f, u, v, r, rd)
    k1 = derivative(x, 0)
    k2 = derivative(_add(x, k1, dt / 2), 1)
    k3 = derivative(_add(x, k2, dt / 2), 1)
    k4 = derivative(_add(x, k3, dt), 2)
    slope = Moving(*(a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True)))
    x = _add(x, slope, dt / 6)
    u = x.u / ops.sqrt(ops.dot(x.u, x.u))
    f = x.f - ops.dot(x.f, u) * u
    f = f / ops.sqrt(ops.dot(f, f))
    if not load:
        return ops.join(x.p, f, u, x.v, ws[2], thrusts[2])
    r = x.r * ops.sqrt(safe2 / ops.where(present, ops.dot(x.r, x.r), 1 + 0 * length2))
    rd = x.rd - ops.dot(x.rd, r) / safe2 * r
    r, rd = ops.where(present, r, zero), ops.where(present, rd, zero)
    return ops.join(x.p, f, u, x.v, ws[2], thrusts[2], r, rd)


def _add(x: Moving, slope: Moving, dt: float) -> Moving:
    return Moving(*(a + dt * b for a, b in zip(x, slope, strict=True)))
