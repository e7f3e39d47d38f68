"""The quadrotor's inner period in C is the one in numpy."""

import numpy as np
import pytest

from native import build
from robots import inner
from robots.autopilot import Autopilot, Memory
from robots.bodies import RATES
from robots.inner import Batch, Inner, written_out
from robots.quadrotor import ENGINES, Quadrotor
from robots.quadrotor_condition import parse
from robots.vehicle import load

V = load("1kg")
in_c = pytest.mark.skipif(build._compiler() is None, reason="no C compiler (cc) on this machine")


def anywhere(rng: np.random.Generator, b: int, vehicle) -> tuple[Batch, Memory]:
    """Tumbling or level, cables taut, slack or not there, rotors at their limits or not, some off: in rows of a larger array, as the engine has
    them."""
    raw = np.zeros((b, 40))
    qpos, qvel = raw[:, 1:15], raw[:, 15:27]
    qpos[:] = rng.normal(0, 1, (b, 14))
    qvel[:] = rng.normal(0, 3, (b, 12)) * (rng.random((b, 1)) < 0.8)
    hooked = rng.random(b) < 0.7
    size = np.linalg.norm(qpos[:, 7:10] - qpos[:, :3], axis=1)
    length = size * rng.choice([0.9, 0.9999, 1.0, 1.2], b)
    command = vehicle.command(rng.uniform(-1, 1, (b, 4)) * rng.choice([0.1, 1.0], (b, 1)))
    works = np.repeat((rng.random((b, 1)) < 0.8).astype(float), 4, 1)
    batch = Batch(
        qpos, qvel, command, rng.normal(0, 2, (b, 3)), works, rng.uniform(0.5, 1, (b, 4)), length, hooked * rng.uniform(0.01, 0.5, b)
    )  # fmt: skip
    memory = Memory(
        rng.uniform(0, vehicle.rotor_thrust_max_n, (b, 4)), rng.normal(0, 3, (b, 3)), rng.normal(0, 20, (b, 3))
    )
    return batch, memory


@in_c
@pytest.mark.parametrize("name", ["1kg", "80g"])
def test_it_gives_what_numpy_gives(name):
    vehicle = load(name)
    rng = np.random.default_rng(0)
    batch, memory = anywhere(rng, 2000, vehicle)
    ours, theirs = (Memory(*(x.copy() for x in memory)) for _ in range(2))
    pilot = Autopilot(vehicle)
    acting = Inner(pilot).of(batch, ours)
    assert inner._compiled() is not None  # else numpy would be compared with itself
    pulled = np.zeros(2000, bool)
    for _ in range(3):
        got = [x.copy() for x in acting()]
        wanted = written_out(pilot, batch, theirs)
        pulled |= np.abs(wanted[2]).max(1) > 0
        for part, x, y in zip(("force", "torque", "pull"), got, wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11, err_msg=part)
        for part, x, y in zip(Memory._fields, ours, theirs, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11, err_msg=part)
    # The batch held what it was to hold: both ends of the mixer, both states of the cable, motors that are off.
    torque = pilot.inertia * (pilot.gain * (batch.command[:, 1:] - batch.qvel[:, RATES]) + theirs.integral)
    wanted = pilot.rotors(batch.command[:, 0], torque)
    assert (wanted == 0).any(1).mean() > 0.05 and (wanted == vehicle.rotor_thrust_max_n).any(1).mean() > 0.05
    assert ((wanted > 0) & (wanted < vehicle.rotor_thrust_max_n)).all(1).mean() > 0.05
    assert 0.2 < pulled.mean() < 0.8 and (ours.thrust == 0).all(1).any()


@in_c
@pytest.mark.parametrize("engine", ENGINES)
def test_a_machine_without_a_compiler_flies_the_same(engine, monkeypatch):
    flown = []
    calls = []
    monkeypatch.setattr(inner, "written_out", lambda *given: calls.append(1) or written_out(*given))
    for compiled in (True, False):
        if not compiled:
            assert not calls
            monkeypatch.setattr(inner, "_compiled", lambda: None)
        texts = ["none", "payload:0.3:0.8", "payload:0.2:0.5@20+none@40", "rotor:2:0.8+wind:2:1"]
        schedules = [parse(text, V) for text in texts]
        robot = Quadrotor(V, engine, payload_seen=True)
        robot.reset([s.at(0) for s in schedules], range(4))
        rng = np.random.default_rng(1)
        states = []
        for t in range(60):
            robot.conditions = [s.at(t) for s in schedules]
            states.append(robot.step(robot.safe_action + rng.uniform(-0.1, 0.1, (4, 4))))
        robot.close()
        flown.append(np.stack(states))
    assert calls
    np.testing.assert_allclose(flown[0], flown[1], atol=1e-9)
    assert np.abs(flown[0][-1] - flown[0][0]).max() > 0.1


def test_arrays_that_it_cannot_read_are_left_to_numpy():
    batch, memory = anywhere(np.random.default_rng(2), 5, V)
    pilot = Autopilot(V)
    wanted = written_out(pilot, batch, Memory(*(x.copy() for x in memory)))
    for odd in (
        batch._replace(command=np.asfortranarray(batch.command)),
        batch._replace(air=batch.air.astype(np.float32)),
    ):
        got = Inner(pilot).of(odd, Memory(*(x.copy() for x in memory)))()
        for x, y in zip(got, wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5)


def test_a_control_period_carries_on_where_the_last_one_ended():
    """What is carried is one memory: a rotor that lags goes on from the thrust it had."""
    robot = Quadrotor(V)
    robot.reset([parse("none", V).at(0)], [0])
    before = robot._memory.thrust.copy()
    full = np.array([[1.0, 0, 0, 0]])
    for n in range(1, 4):
        robot.part(full, 1)
        lag = Autopilot(V).lag
        wanted = V.rotor_thrust_max_n + (before - V.rotor_thrust_max_n) * (1 - lag) ** n
        np.testing.assert_allclose(robot._memory.thrust.mean(), wanted.mean(), rtol=0.02)


@pytest.mark.parametrize(("conditions", "positions"), [(1, (2, 3)), (2, (1, 3)), (2, (2, 2))])
def test_a_start_that_cannot_be_leaves_the_flight_as_it_is(conditions, positions):
    robot = Quadrotor(V)
    robot.reset([parse("none", V).at(0)] * 2, [0, 1])
    twin = Quadrotor(V)
    twin.reset([parse("none", V).at(0)] * 2, [0, 1])
    with pytest.raises(ValueError, match="valid: 2"):
        robot.reset([parse("none", V).at(0)] * conditions, [0, 1], np.zeros(positions))
    actions = np.tile(robot.safe_action, (2, 1))
    for _ in range(3):
        np.testing.assert_array_equal(robot.step(actions), twin.step(actions))
