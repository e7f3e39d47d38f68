"""The vehicle below the command interface: body-rate loop, mixer and rotors, in numpy over a batch, the same for every engine
(inner.c has it once more, for real time).

    e       = w_c - w,   w_m' = k_p (w_c - w_m),   i' = k_i (w_m - w)      w_c commanded, w_m a first-order model of the answer
    tau     = J (k_p e + i) + w x J w
    f_c     = mix(T_c, tau)                                               within 0 and the rotors' largest thrust
    f'      = (f_c - f) / t_rotor

The integral acts on the distance to the model, not to the command, so a healthy vehicle answers without overshoot and a weak rotor
is still corrected. Gains and lags are the vehicle's (robots.vehicle).
"""

from typing import NamedTuple

import numpy as np

from robots.vehicle import Vehicle


class Memory(NamedTuple):
    """What the autopilot and the rotors carry from one inner period to the next."""

    thrust: np.ndarray  # (b, 4) of each rotor as commanded, after the lag [N]
    model: np.ndarray  # (b, 3) body rates of the first-order model [rad/s]
    integral: np.ndarray  # (b, 3) [rad/s^2]


def init(vehicle: Vehicle, rates: np.ndarray) -> Memory:
    """Rotors that hold the vehicle's own weight, at body rates (b, 3)."""
    thrust = np.full((len(rates), 4), vehicle.hover_thrust_n / 4)
    return Memory(thrust, rates.copy(), np.zeros_like(rates))


class Autopilot:
    """Stateless but for constants of the vehicle."""

    def __init__(self, vehicle: Vehicle):
        self.vehicle = vehicle
        self.dt = 1 / vehicle.inner_rate_hz  # [s]
        self.lag = 1 - np.exp(-self.dt / vehicle.rotor_time_constant_s)  # exact for a command held over dt
        self.inertia = np.array(vehicle.inertia_kg_m2)
        self.gain = np.array(vehicle.rate_gain_per_s)
        self.integral_gain = np.array(vehicle.rate_integral_per_s2)
        self.mix = np.linalg.inv(vehicle.allocation)
        # Where the integral stops: half of the angular acceleration that the rotors can give from hover.
        reach = np.abs(vehicle.allocation[1:]).sum(1) * vehicle.rotor_thrust_max_n / 2
        self.integral_max = 0.5 * reach / self.inertia

    def step(self, memory: Memory, command: np.ndarray, rates: np.ndarray) -> Memory:
        """command (b, 4) collective thrust [N] and body rates [rad/s], rates (b, 3) measured -> memory one inner period later."""
        wanted = command[:, 1:]
        integral = memory.integral + self.dt * self.integral_gain * (memory.model - rates)
        integral = np.clip(integral, -self.integral_max, self.integral_max)
        model = memory.model + self.dt * self.gain * (wanted - memory.model)
        momentum = self.inertia * rates
        torque = self.inertia * (self.gain * (wanted - rates) + integral) + cross(rates, momentum)
        target = self.rotors(command[:, 0], torque)
        return Memory(memory.thrust + self.lag * (target - memory.thrust), model, integral)

    def rotors(self, thrust: np.ndarray, torque: np.ndarray) -> np.ndarray:
        """Collective thrust (b,) [N] and body torque (b, 3) [N m] -> thrust of each rotor (b, 4) within its range.

        What does not fit gives way in this order: yaw first, then collective thrust, then roll and pitch, because a vehicle that
        keeps its tilt under control recovers the rest (cf. Faessler, Falanga, Scaramuzza 2017, sec. IV)."""
        most = self.vehicle.rotor_thrust_max_n
        tilt = torque[:, :2] @ self.mix[:, 1:3].T
        low, high = tilt.min(1), tilt.max(1)
        shrink = np.minimum(1, most / np.maximum(high - low, 1e-12))
        tilt, low, high = tilt * shrink[:, None], low * shrink, high * shrink
        base = tilt + np.clip(thrust / 4, -low, most - high)[:, None]
        yaw = torque[:, 2:] * self.mix[:, 3]
        room = np.where(yaw > 0, most - base, base)
        share = np.minimum(1, (np.maximum(room, 0) / np.maximum(np.abs(yaw), 1e-12)).min(1))
        return np.clip(base + share[:, None] * yaw, 0, most)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(b, 3), (b, 3) -> (b, 3). numpy's own takes five times as long on a small batch."""
    return a[:, _NEXT] * b[:, _LAST] - a[:, _LAST] * b[:, _NEXT]


_NEXT, _LAST = [1, 2, 0], [2, 0, 1]
