"""The physics of flight on both engines, which agree: free fall, hover, wind and gusts, a weak rotor, added inertia."""

import math
from dataclasses import replace

import numpy as np
import pytest
from airborne import ENGINES, HIGH, VACUUM, V, condition, cut, flying, hover, manoeuvre, play, put

from robots import quadrotor
from robots.quadrotor_condition import NONE, Condition
from robots.vehicle import GRAVITY, load

EVERYTHING = "payload:0.3:0.8+wind:3:40+gust:1+rotor:2:0.8+inertia:1.3"


@pytest.mark.parametrize("engine", ENGINES)
def test_free_fall(engine):
    robot = flying([NONE], engine, VACUUM)
    put(robot, HIGH, [5, 5, 0.1], vehicle_v=(1, 0, 0))
    cut(robot)
    s = hover(robot, 50)[0]
    t = 0.01 * np.arange(1, 51)
    np.testing.assert_allclose(s[:, 11], -GRAVITY * t, atol=1e-9)
    np.testing.assert_allclose(s[:, 0], t, atol=1e-9)
    # Semi-implicit Euler at 1 ms falls ahead by g t dt / 2.
    np.testing.assert_allclose(s[:, 2], 6 - GRAVITY * t * (t + 0.001) / 2, atol=1e-9)


@pytest.mark.parametrize("vehicle", [VACUUM, replace(load("80g"), drag_n_s_per_m=(0.0, 0.0, 0.0))])
@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("engine", ENGINES)
def test_hover_thrust_equals_weight(engine, fraction, vehicle):
    c = Condition(payload=(fraction, 0.7)) if fraction else NONE
    robot = flying([c], engine, vehicle)
    put(robot, HIGH, HIGH - [0, 0, 0.7])
    rates_of_fall = hover(robot, 50, 1 + fraction)[0, 30:, 11]
    # By then the rotors have reached the command: nothing changes any more, though a little was lost on the way.
    np.testing.assert_allclose(np.diff(rates_of_fall), 0, atol=1e-6)
    heavier = flying([c], engine, vehicle)
    put(heavier, HIGH, HIGH - [0, 0, 0.7])
    assert np.diff(hover(heavier, 50, 1 + fraction + 0.01)[0, 30:, 11]).min() > 5e-4


@pytest.mark.parametrize("text", ["none", "payload:0.4:0.6", EVERYTHING])
@pytest.mark.parametrize("name", ["1kg", "80g"])
def test_the_two_engines_agree_on_an_aggressive_second(name, text):
    # To rounding: rotors, drag and cable are our own code on both, and both engines integrate free rigid bodies alike.
    vehicle = load(name)
    c = condition(text, vehicle)
    actions = manoeuvre(4, 100, vehicle, c.payload[0] if c.payload else 0.0)
    ours, theirs = (play(flying([c] * 4, engine, vehicle), actions) for engine in ENGINES)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert ours[..., 8].min() < 0.9 and np.abs(ours[..., 12:15]).max() > 4 and np.abs(ours[..., 9:12]).max() > 2


@pytest.mark.parametrize("engine", ENGINES)
def test_wind_carries_along_and_gusts_have_the_stated_spread_and_memory(engine):
    robot = flying([condition("wind:4:90")], engine)
    put(robot, HIGH, [5, 5, 0.1])
    v = hover(robot, 50)[0, -1, 9:12]
    expected = 4 * (1 - math.exp(-V.drag_n_s_per_m[1] * 0.5 / V.mass_kg))
    np.testing.assert_allclose(v, [0, expected, 0], atol=1e-3)
    if engine == "mujoco":  # the same lines for both
        robot = flying([condition("gust:1.5")] * 50, engine, seen=False)
        air = np.stack([robot._blow() for _ in range(400)], 1)
        assert air.std() == pytest.approx(1.5, rel=0.05) and np.abs(air.mean((0, 1))).max() < 0.2
        kept = (air[:, 1:] * air[:, :-1]).mean() / (air**2).mean()
        assert kept == pytest.approx(math.exp(-0.01 / quadrotor.GUST_TIME), abs=5e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_weak_rotor_and_added_inertia_do_what_they_say(engine):
    robot = flying([NONE, condition("rotor:0:0.5")], engine, VACUUM)
    put(robot, HIGH, [5, 5, 0.1])
    robot.bodies.place(1, robot.bodies.qpos[0], robot.bodies.qvel[0])
    whole, weak = hover(robot, 1)[:, 0]
    # One of four rotors at half strength: an eighth of the thrust is gone, and the body turns towards it (front left).
    assert weak[11] - whole[11] == pytest.approx(-GRAVITY / 8 * 0.01, rel=0.02)
    assert weak[12] < -0.1 and weak[13] > 0.1
    robot = flying([NONE, condition("inertia:2")], engine, VACUUM)
    for i in range(2):
        robot.bodies.place(i, np.array([*HIGH, 1, 0, 0, 0, 5, 5, 0.1, 1, 0, 0, 0], float), np.zeros(12))
    command = V.action(np.array([V.hover_thrust_n, 1.0, 0, 0]))
    light, heavy = robot.step(np.tile(command, (2, 1)))[:, 12]
    assert heavy == pytest.approx(light / 2, rel=0.02)
