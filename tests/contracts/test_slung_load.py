"""The physics of a load on a cable, on both engines: its period, its energy, a cable that never stretches; attached, lifted, dropped."""

import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest
from airborne import ENGINES, HIGH, VACUUM, V, condition, cut, flying, hover, play, put

from robots.bodies import LOAD, V_LOAD, V_VEHICLE, radius
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import NONE, Condition, parse
from robots.vehicle import GRAVITY


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "vehicle, fraction",
    [
        # Held: so heavy that the load cannot move it. Free: moves sideways against the load, tilt held, thrust = weight.
        (replace(VACUUM, mass_kg=1e4, rotor_thrust_max_n=6e4, inertia_kg_m2=(82.0, 82.0, 148.0)), 1e-5),
        (VACUUM, 0.5),
    ],
    ids=["held", "free"],
)
@pytest.mark.parametrize("length", [0.3, 1.2])
def test_period_of_the_load(engine, vehicle, fraction, length):
    amplitude = 0.1  # [rad]
    robot = flying([Condition(payload=(fraction, length))], engine, vehicle)
    swung = length * np.array([math.sin(amplitude), 0, -math.cos(amplitude)])
    put(robot, HIGH, HIGH + swung)
    robot._memory.thrust[:] = (1 + fraction) * vehicle.hover_thrust_n / 4  # no transient of the rotors
    x = hover(robot, 300, 1 + fraction)[0, :, 16]
    t = 0.01 * np.arange(1, 301)
    i = np.nonzero(np.diff(np.sign(x)))[0]
    crossings = t[i] - x[i] * 0.01 / (x[i + 1] - x[i])
    period = 2 * np.diff(crossings).mean()
    # T = m_all g on the vehicle alone is a gravity of (1 + fraction) g to a relative motion. 1 + A^2 / 16: the amplitude.
    formula = 2 * math.pi * math.sqrt(length / (GRAVITY * (1 + fraction))) * (1 + amplitude**2 / 16)
    assert len(crossings) >= 2 and period == pytest.approx(formula, rel=1e-3)


def energy(robot: Quadrotor, fraction: float) -> float:
    """Kinetic and potential, of vehicle and load [J]."""
    qpos, qvel, m = robot.bodies.qpos[0], robot.bodies.qvel[0], robot.vehicle.mass_kg
    spin = 0.5 * (np.array(robot.vehicle.inertia_kg_m2) * qvel[3:6] ** 2).sum()
    vehicle = m * (0.5 * (qvel[V_VEHICLE] ** 2).sum() + GRAVITY * qpos[2])
    return spin + vehicle + fraction * m * (0.5 * (qvel[V_LOAD] ** 2).sum() + GRAVITY * qpos[9])


@pytest.mark.parametrize("engine", ENGINES)
def test_energy_is_conserved_with_the_rotors_off_in_vacuum(engine):
    # Tumbling, with the load whirling round the vehicle on a taut cable, for 0.8 s of free fall.
    robot = flying([Condition(payload=(0.5, 0.8))], engine, VACUUM)
    put(robot, [0, 0, 8], [0.8, 0, 8], load_v=(0, 4, 2), rates=(3, -4, 5))
    cut(robot)
    # At half periods, where the scheme has its velocities: half a period of free fall later.
    begun = energy(robot, 0.5)
    s = hover(robot, 80)[0]
    ended = energy(robot, 0.5)
    bias = -0.5 * 1.5 * GRAVITY**2 * 0.8 * 0.001  # of semi-implicit Euler in free fall: see test_free_fall
    kinetic = 0.5 * 0.5 * 20
    assert ended - begun == pytest.approx(bias, abs=2e-3 * kinetic)
    np.testing.assert_allclose(np.linalg.norm(s[:, 16:19], axis=1), 0.8, atol=1e-9)
    np.testing.assert_allclose((s[:, 19:] ** 2).sum(1), 20, rtol=1e-2)
    # Angular momentum of the tumbling vehicle, in the world.
    rot = np.stack((s[:, 3:6], np.cross(s[:, 6:9], s[:, 3:6]), s[:, 6:9]), 1)
    momentum = np.einsum("tij,tj->ti", rot, s[:, 12:15] * V.inertia_kg_m2)
    np.testing.assert_allclose(momentum, np.tile(momentum[0], (80, 1)), atol=5e-3 * np.linalg.norm(momentum[0]))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_cable_is_never_longer_and_slack_when_the_load_is_thrown_up(engine):
    length, m_load = 0.8, 0.2
    robot = flying([Condition(payload=(m_load, length))], engine, VACUUM)
    put(robot, HIGH, HIGH - [0, 0, length], load_v=(0.3, 0, 3.0))
    s = hover(robot, 100)[0]
    apart = np.linalg.norm(s[:, 16:19], axis=1)
    assert apart.max() <= length + 1e-9 and apart.min() < 0.5 * length
    assert apart[-20:].max() > length - 1e-6  # it came back
    # While slack each is on its own: the vehicle hovers, the load is a projectile.
    np.testing.assert_allclose(s[:40, 9:12], 0, atol=1e-9)
    np.testing.assert_allclose(s[:40, 21], 3 - GRAVITY * 0.01 * np.arange(1, 41), atol=1e-9)
    # When it snaps taut, momentum is exchanged, not made.
    v_vehicle, v_load = robot.bodies.qvel[0, V_VEHICLE], robot.bodies.qvel[0, V_LOAD]
    total = v_vehicle + m_load * v_load
    np.testing.assert_allclose(total, m_load * np.array([0.3, 0, 3.0 - GRAVITY * 1.0]), atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_load_on_the_ground_is_lifted_off_it(engine):
    robot = flying([condition("payload:0.3:1.0")], engine)
    put(robot, [0, 0, 0.5], [0, 0, radius(V)])
    command = V.action(np.array([14.0, 0, 0, 0]))
    # It stays on the ground until the cable is taut; the ground pushes while the cable pulls, so the tolerance is wider.
    s = play(robot, np.tile(command, (1, 150, 1)))[0]
    heights = s[:, 2] + s[:, 18]
    assert heights[:20] == pytest.approx(radius(V), abs=2e-3) and heights[-1] > 0.5
    assert np.linalg.norm(s[:, 16:19], axis=1).max() <= 1.0 + 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_attached_below_at_rest_and_dropped_to_fall(engine):
    schedule = parse("payload:0.4:0.7@5+none@10", V)
    robot = flying([NONE], engine)
    for t in range(40):
        robot.conditions = [schedule.at(t)]
        before = robot.bodies.qvel[0, V_VEHICLE].copy()
        s = robot.step(robot.safe_action[None])[0]
        if t < 5:
            assert (s[16:] == 0).all() and np.isnan(robot.payload()).all()
        elif t < 10:
            assert np.linalg.norm(s[16:19]) == pytest.approx(0.7, abs=1e-9)
            np.testing.assert_allclose(robot.payload()[0, :3], robot.bodies.qpos[0, LOAD])
            if t == 5:
                np.testing.assert_allclose(s[16:19], 0.7 * -s[6:9], atol=2e-3)  # s[6:9]: up, in body coordinates
                assert np.linalg.norm(s[19:]) < 0.05
                assert robot.bodies.qvel[0, 2] - before[2] == pytest.approx(-0.4 / 1.4 * GRAVITY * 0.01, rel=0.05)
        else:
            assert (s[16:] == 0).all()
    fallen = 0.3 * GRAVITY * 0.3 / 2
    assert robot.bodies.qpos[0, 2] - robot.bodies.qpos[0, 9] == pytest.approx(0.7 + fallen, abs=0.15)


def test_the_payload_is_attached_on_the_ground_where_that_is_nearer_than_the_cable():
    robot = Quadrotor(payload_seen=True)
    robot.reset([condition("payload:0.3:1.2")], [0], np.array([[0.0, 0.0, 0.8]]))
    assert robot.payload()[0, 2] == pytest.approx(radius(V))


TENDON = """
<mujoco>
  <option timestep="0.0002" gravity="0 0 -9.81"/>
  <worldbody>
    <body pos="0 0 6"><freejoint/><inertial pos="0 0 0" mass="1" diaginertia="0.0082 0.0082 0.0148"/><site name="a"/></body>
    <body pos="0 0 5.4"><freejoint/><inertial pos="0 0 0" mass="0.4" diaginertia="1e-3 1e-3 1e-3"/><site name="b"/></body>
  </worldbody>
  <tendon>
    <spatial limited="true" range="0 0.6" solreflimit="0.002 1" solimplimit="0.99 0.999 0.001">
      <site site="a"/><site site="b"/>
    </spatial>
  </tendon>
</mujoco>
"""


@pytest.mark.parametrize("thrown", [(1.5, 0.5, 0.0), (0.3, 0.0, 2.0)], ids=["swinging", "slack and taut again"])
def test_the_cable_moves_the_load_as_mujocos_own_tendon_does(thrown):
    model = mujoco.MjModel.from_xml_string(TENDON)
    data = mujoco.MjData(model)
    data.qvel[6:9] = thrown
    data.xfrc_applied[1, 2] = 1.4 * GRAVITY
    robot = flying([condition("payload:0.4:0.6")], "mujoco", VACUUM)
    put(robot, HIGH, HIGH - [0, 0, 0.6], load_v=thrown)
    robot._memory.thrust[:] = 1.4 * GRAVITY / 4
    ours = hover(robot, 60, 1.4)[0, :, 16:19]
    theirs = []
    for _ in range(60):
        mujoco.mj_step(model, data, 50)
        theirs.append(data.qpos[7:10] - data.qpos[:3])
    print(np.abs(ours - np.array(theirs)).max())
    # Theirs is a stiff spring: it stretches by some millimetres and gives a little of a snap back.
    np.testing.assert_allclose(ours, theirs, atol=0.01 if thrown[2] == 0 else 0.04)
    assert np.ptp(ours, axis=0).max() > 0.1
