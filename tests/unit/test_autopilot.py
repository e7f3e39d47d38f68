"""The body-rate loop and the mixer: what is asked for, what gives way when it does not fit, and how fast it comes."""

import numpy as np
import pytest

from robots import autopilot
from robots.autopilot import Autopilot
from robots.vehicle import load

VEHICLE = load("1kg")
PILOT = Autopilot(VEHICLE)


def asked(n: int = 500, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Collective thrusts (n,) [N] and torques (n, 3) [N m], the more beyond reach the larger `scale`."""
    rng = np.random.default_rng(0)
    return rng.uniform(6, 14, n), scale * rng.uniform(-1, 1, (n, 3)) * (0.2, 0.2, 0.03)


def test_what_fits_is_delivered_exactly():
    thrust, torque = asked()
    rotors = PILOT.rotors(thrust, torque)
    np.testing.assert_allclose(rotors @ VEHICLE.allocation.T, np.column_stack((thrust, torque)), atol=1e-12)


@pytest.mark.parametrize("scale", [3.0, 10.0, 100.0])
def test_rotors_stay_in_range_and_roll_and_pitch_outlast_thrust_and_yaw(scale):
    thrust, torque = asked(scale=scale)
    rotors = PILOT.rotors(thrust, torque)
    assert rotors.min() >= 0 and rotors.max() <= VEHICLE.rotor_thrust_max_n
    got = rotors @ VEHICLE.allocation.T
    # Roll and pitch in full where any rotors could give them, in the same direction where none could.
    alone = torque[:, :2] @ PILOT.mix[:, 1:3].T
    fits = np.ptp(alone, axis=1) <= VEHICLE.rotor_thrust_max_n
    assert fits.any() if scale < 10 else not fits.all()
    np.testing.assert_allclose(got[fits, 1:3], torque[fits, :2], atol=1e-12)
    cosine = (got[:, 1:3] * torque[:, :2]).sum(1)
    np.testing.assert_allclose(cosine, np.linalg.norm(got[:, 1:3], axis=1) * np.linalg.norm(torque[:, :2], axis=1))
    # Yaw is cut, never reversed.
    assert (got[:, 3] * torque[:, 2] >= -1e-12).all() and (np.abs(got[:, 3]) <= np.abs(torque[:, 2]) + 1e-12).all()
    assert (np.abs(got[:, 3]) < 0.99 * np.abs(torque[:, 2])).any()


def test_yaw_gives_way_before_thrust():
    rotors = PILOT.rotors(np.array([22.0]), np.array([[0.0, 0.0, 1.0]]))[0]
    assert rotors.sum() == pytest.approx(22.0) and rotors.max() == pytest.approx(VEHICLE.rotor_thrust_max_n)


def turn(command: np.ndarray, seconds: float, gain: np.ndarray | None = None) -> np.ndarray:
    """A body that only rotates, from rest -> its rates (t, 3) each inner period [rad/s]."""
    rates, inertia = np.zeros((1, 3)), np.array(VEHICLE.inertia_kg_m2)
    memory, history = autopilot.init(VEHICLE, rates), []
    for _ in range(round(seconds / PILOT.dt)):
        memory = PILOT.step(memory, command[None], rates)
        torque = (memory.thrust * (1.0 if gain is None else gain)) @ VEHICLE.allocation[1:].T
        gyroscopic = autopilot.cross(rates, inertia * rates)
        rates = rates + PILOT.dt * (torque - gyroscopic) / inertia
        history.append(rates[0])
    return np.array(history)


@pytest.mark.parametrize("axis", range(3))
def test_a_step_in_rate_is_answered_with_the_stated_mean_delay(axis):
    command = np.zeros(4)
    command[0], command[1 + axis] = VEHICLE.hover_thrust_n, 1.0
    rates = turn(command, 3.0)
    assert rates[-1, axis] == pytest.approx(1.0, abs=1e-3)
    assert rates[:, axis].max() < 1.06
    delay = (1 - rates[:, axis]).sum() * PILOT.dt
    assert delay == pytest.approx(VEHICLE.rate_time_constant_s[axis], rel=0.05)


def test_a_weak_rotor_is_corrected_by_the_integral():
    command, gain = np.array([VEHICLE.hover_thrust_n, 0, 0, 0]), np.array([1.0, 1.0, 0.8, 1.0])
    rates = turn(command, 6.0, gain)
    assert np.abs(rates).max() > 0.1  # it does disturb
    assert np.abs(rates[-1, :2]).max() < 1e-2


def test_cross_is_the_cross_product():
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3))
    np.testing.assert_allclose(autopilot.cross(a, b), np.cross(a, b))
