"""Laws of the quadrotor on both engines: determinism, independence within a batch, conditions, crashes, and the physics of flight."""

import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from robots import autopilot, quadrotor
from robots.bodies import LOAD, V_LOAD, V_VEHICLE, VEHICLE, radius
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import NONE, Condition, parse
from robots.vehicle import GRAVITY, Vehicle, VehicleError, load

V = load("1kg")
VACUUM = replace(V, drag_n_s_per_m=(0.0, 0.0, 0.0))
ENGINES = quadrotor.ENGINES
EVERY_KIND = ("none", "payload:0.4:0.6", "wind:4:30", "gust:2", "rotor:2:0.8", "inertia:1.5")
EVERYTHING = "payload:0.3:0.8+wind:3:40+gust:1+rotor:2:0.8+inertia:1.3"
HIGH = np.array([0.0, 0.0, 6.0])


def condition(text: str, vehicle: Vehicle = V) -> Condition:
    return parse(text, vehicle).at(0)


CONDITIONS = [condition(text) for text in EVERY_KIND]


def flying(conditions: list[Condition], engine: str, vehicle: Vehicle = V, seeds=None, seen: bool = True) -> Quadrotor:
    """Reset, high above the ground."""
    robot = Quadrotor(vehicle, engine, payload_seen=seen)
    b = len(conditions)
    robot.reset(conditions, list(range(b) if seeds is None else seeds), np.tile(HIGH, (b, 1)))
    return robot


def put(robot: Quadrotor, vehicle_at, load_at, vehicle_v=(0, 0, 0), load_v=(0, 0, 0), rates=(0, 0, 0)) -> None:
    """Upright vehicle and load of robot 0 at positions in the world [m], with velocities [m/s] and body rates [rad/s]."""
    robot.bodies.place(
        0,
        np.concatenate((vehicle_at, [1, 0, 0, 0], load_at, [1, 0, 0, 0])).astype(float),
        np.concatenate((vehicle_v, rates, load_v, [0, 0, 0])).astype(float),
    )
    fresh = autopilot.init(robot.vehicle, np.array([rates], float))
    for memory, start in zip(robot._memory, fresh, strict=True):
        memory[0] = start[0]


def manoeuvre(b: int, steps: int, vehicle: Vehicle = V, carried: float = 0.0, seed: int = 0) -> np.ndarray:
    """(b, t, 4): thrust between 0.6 and 1.5 of the weight, rates up to 70% of the largest for 0.2 s and back for 0.2 s."""
    rng, actions = np.random.default_rng(seed), np.zeros((b, steps, 4))
    for t in range(steps):
        if t % 40 == 0:
            thrust = (1 + carried) * vehicle.hover_thrust_n * rng.uniform(0.6, 1.5, (b, 1))
            rates = 0.7 * np.array(vehicle.rate_max_rad_s) * rng.uniform(-1, 1, (b, 3))
        sign = 1 if t % 40 < 20 else -1
        actions[:, t] = vehicle.action(np.concatenate((thrust, sign * rates), 1))
    return actions


def play(robot: Quadrotor, actions: np.ndarray) -> np.ndarray:
    """(b, t, 4) -> states (b, t, s)."""
    return np.stack([robot.step(actions[:, t]) for t in range(actions.shape[1])], 1)


def hover(robot: Quadrotor, steps: int, factor: float = 1.0) -> np.ndarray:
    """(b, t, s) under a thrust of `factor` vehicle weights and no rates."""
    command = np.array([factor * robot.vehicle.hover_thrust_n, 0, 0, 0])
    return play(robot, np.tile(robot.vehicle.action(command), (len(robot.crashed), steps, 1)))


def cut(robot: Quadrotor) -> None:
    """Rotors off, as after a crash."""
    robot.crashed[:] = True


@pytest.mark.parametrize("engine", ENGINES)
def test_same_seed_gives_the_same_episode_and_another_seed_another(engine):
    actions = manoeuvre(6, 30)
    first, again, other = (
        play(flying(CONDITIONS, engine, seeds=range(k, k + 6)), actions) for k in (0, 0, 100)
    )  # fmt: skip
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first - other).max((1, 2)) > 0.01).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_batched_stepping_equals_one_by_one(engine):
    actions = manoeuvre(6, 30)
    batched = play(flying(CONDITIONS, engine), actions)
    for i, c in enumerate(CONDITIONS):
        alone = play(flying([c], engine, seeds=[i]), actions[i : i + 1])[0]
        # numpy's products of one row round differently from those of several.
        np.testing.assert_allclose(alone, batched[i], atol=1e-11, err_msg=EVERY_KIND[i])


@pytest.mark.parametrize("engine", ENGINES)
def test_conditions_act_while_they_hold_and_leave_no_trace(engine):
    schedules = [parse(f"{text}@10+none@20", V) for text in EVERY_KIND]
    robot, untouched = (flying([NONE] * 6, engine, seen=False) for _ in range(2))
    actions = manoeuvre(6, 30)
    states = []
    for t in range(30):
        robot.conditions = [s.at(t) for s in schedules]
        states.append(robot.step(actions[:, t]))
        if t == 19:
            qpos, qvel, memory = robot.bodies.qpos.copy(), robot.bodies.qvel.copy(), robot._memory
    wanted = play(untouched, actions[:, :20])
    np.testing.assert_array_equal(wanted[:, :10], np.stack(states[:10], 1))
    changed = np.abs(wanted[:, 10:] - np.stack(states[10:20], 1)).max((1, 2))
    assert changed[0] == 0 and (changed[1:] > 1e-4).all(), dict(zip(EVERY_KIND, changed, strict=True))
    # From where the condition left them, vehicles that never had one fly on alike.
    for i in range(6):
        untouched.bodies.place(i, qpos[i], qvel[i])
    untouched._memory = memory
    np.testing.assert_allclose(play(untouched, actions[:, 20:]), np.stack(states[20:], 1), atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_restart_touches_only_the_robots_named(engine):
    robot = flying(CONDITIONS, engine)
    start, before = robot.state(), play(robot, manoeuvre(6, 5))[:, -1]
    robot.crashed[2] = True
    after = robot.restart(np.array([2, 4]), [2, 77])
    untouched = [0, 1, 3, 5]
    np.testing.assert_array_equal(after[untouched], before[untouched])
    np.testing.assert_array_equal(after[2], start[2])
    assert np.abs(after[4] - start[4]).max() > 0.01 and not robot.crashed.any()


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


@pytest.mark.parametrize("engine", ENGINES)
def test_crashes_are_counted_and_stay(engine):
    robot = flying([NONE] * 4, engine, seen=False)
    still = np.zeros(12)
    up, over = [1, 0, 0, 0], [0.6, 0.8, 0, 0]  # over: turned by 106 degrees
    for i, (where, turned) in enumerate((((0, 0, 0.1), up), ((0, 0, 5), over), ((9.95, 0, 5), up), ((0, 0, 5), up))):
        robot.bodies.place(i, np.array([*where, *turned, 5, 5, 0.1, 1, 0, 0, 0], float), still)
    robot.bodies.qvel[2, 0] = 1.0
    robot.bodies.place(2, robot.bodies.qpos[2].copy(), robot.bodies.qvel[2].copy())
    actions = np.tile(V.action(np.array([0.98 * V.hover_thrust_n, 0, 0, 0])), (4, 1))
    down = np.tile(V.action(np.zeros(4)), (4, 1))
    assert not robot.crashed.any()
    for t in range(60):
        robot.step(down if t < 20 else actions)
        if t == 0:
            assert robot.crashed.tolist() == [False, True, False, False]
    assert robot.crashed.tolist() == [True, True, True, False]
    # Motors cut: the last one still flies, the first lies on the ground.
    assert robot.bodies.qpos[0, 2] == pytest.approx(radius(V), abs=5e-3)
    assert robot.bodies.qvel[1, 2] < -4 and abs(robot.bodies.qvel[3, 2]) < 3


@pytest.mark.parametrize("seen", [False, True])
def test_the_state_is_flyings(seen):
    c = condition("payload:0.4:0.6")
    robot = flying([c] * 3, "mujoco", seen=seen)
    states = torch.as_tensor(play(robot, manoeuvre(3, 20, carried=0.4)))
    space = robot.space
    assert states.shape == (3, 20, space.n_state) and space.n_action == 4
    assert space.features(states).shape == (3, 20, space.n_feature)
    delta = space.local(states[:, :-1], states[:, 1:])
    assert delta.shape[-1] == space.n_delta
    torch.testing.assert_close(space.retract(states[:, :-1], delta), states[:, 1:], atol=1e-9, rtol=0)
    # Another place and heading: same features.
    turned, angle = states.clone(), 0.7
    rot = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    ).double()
    rows = torch.stack((states[..., 3:6], torch.linalg.cross(states[..., 6:9], states[..., 3:6]), states[..., 6:9]), -2)
    turned[..., 3:6], turned[..., :3] = (rot @ rows)[..., 0, :], states[..., :3] + 2
    torch.testing.assert_close(space.features(turned), space.features(states))
    torch.testing.assert_close(space.local(turned[:, :-1], turned[:, 1:])[..., 3:], delta[..., 3:], atol=1e-9, rtol=0)
    if seen:
        rows = rows.numpy()
        apart = np.einsum("...ji,...j->...i", rows[:, -1], robot.bodies.qpos[:, LOAD] - robot.bodies.qpos[:, VEHICLE])
        np.testing.assert_allclose(states[:, -1, 16:19], apart, atol=1e-9)


def test_what_the_payload_weighs_does_not_show_at_the_start():
    unseen = [flying([condition(text)], "mujoco", seen=False).state() for text in ("none", "payload:0.4:0.6")]
    np.testing.assert_array_equal(*unseen)


def test_bad_use_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="unknown engine 'gazebo'; valid: mujoco, pybullet"):
        Quadrotor(engine="gazebo")
    with pytest.raises(VehicleError, match=r"no vehicle '2kg'.*valid: 1kg, 80g"):
        Quadrotor("2kg")
    with pytest.raises(RuntimeError, match="call reset first"):
        Quadrotor().state()
    robot = flying([NONE], "mujoco")
    for action in (np.full((1, 4), np.nan), np.zeros((1, 3)), np.zeros((2, 4))):
        with pytest.raises(ValueError, match=r"valid: \(1, 4\) finite numbers"):
            robot.step(action)


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
