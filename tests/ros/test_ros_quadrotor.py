"""The quadrotor over DDS: the flight of one process to the bit, recorded, replayed, reported; and what may change while it flies."""

import json
import math
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from controller.cli import main
from controller.fly import fly
from controller.pilots import make_pilot
from controller.ros import bag, convert
from controller.ros.bench import BACK_S, Bench
from controller.ros.brains import BRAINS
from controller.ros.controller_config import ControlConfig
from controller.ros.faults import controller_killed
from controller.ros.flight_config import FlightConfig, make_robot
from controller.ros.intake import PATIENCE
from controller.ros.loop import MISS, OPERATOR, RESET, STEP
from controller.ros.robot_config import LATE_MS
from robots.bodies import LOAD, VEHICLE
from robots.quadrotor_condition import parse
from robots.space import rotation_to_quaternion

STEPS, CONDITION, SEED = 80, "payload:0.4:1.0@20+none@60", 3


def record(path: Path, domain: int, *extra: str) -> Path:
    main(
        ["ros", "quadrotor", "--lockstep", "--duration", str(STEPS / 100), "--record", str(path), "--condition", CONDITION,
         "--seed", str(SEED), "--domain", str(domain), *extra]
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def unseen(tmp_path_factory, domain) -> Path:
    return record(tmp_path_factory.mktemp("unseen") / "bag", domain, "--flight.no-payload-seen")


@pytest.fixture(scope="module")
def seen(tmp_path_factory, domain) -> Path:
    return record(tmp_path_factory.mktemp("seen") / "bag", domain, "--engine", "pybullet")


def commands(path: Path) -> np.ndarray:
    """(t, 4) in their order."""
    return np.array([m.content.data for m in bag.read(path) if m.topic.endswith("/commands")])


def test_the_commands_are_those_of_the_same_flight_in_one_process(unseen):
    flight = FlightConfig(payload_seen=False)
    robot = make_robot(flight)
    brain = BRAINS["quadrotor"](ControlConfig(robot="quadrotor", seed=SEED, flight=flight), None)
    pilot = make_pilot("variational", robot, "vehicle")
    alone = fly(pilot, robot, [brain.path], [parse(CONDITION, robot.vehicle)], [SEED], STEPS)
    assert np.array_equal(commands(unseen), alone.commands[0])
    assert np.ptp(alone.commands[0], 0).min() > 0.01


def test_a_payload_that_is_seen_gives_the_commands_of_its_brain_in_one_process(seen):
    """Its velocity is not in the messages, so `fly`, which knows it, flies a little otherwise: the brain and the robot are run alone."""
    flight = FlightConfig()
    robot = make_robot(flight, "pybullet")
    brain = BRAINS["quadrotor"](ControlConfig(robot="quadrotor", seed=SEED, flight=flight), None)
    schedule, memory, found = parse(CONDITION, robot.vehicle), brain.init(SEED), []
    robot.reset([schedule.at(0)], [SEED], brain.path.at(np.zeros(1)).p)
    for i in range(STEPS):
        apart = robot.bodies.qpos[0, LOAD] - robot.bodies.qpos[0, VEHICLE]
        hangs = robot.conditions[0].payload is not None
        state = np.concatenate((robot.state()[0, :15], apart if hangs else np.zeros(3)))
        command, memory, _ = brain.step(memory, state, i * 10_000_000, None)
        found.append(command)
        robot.conditions = [schedule.at(i)]
        robot.step(robot.vehicle.action(command)[None])
    assert np.array_equal(commands(seen), np.array(found))


@pytest.mark.parametrize("which", ["unseen", "seen"])
def test_replay_gives_the_same_commands(which, request, capsys):
    main(["replay", str(request.getfixturevalue(which))])
    assert f"{STEPS} of {STEPS} actions identical" in capsys.readouterr().out


def test_the_report_knows_the_path(seen, tmp_path):
    main(["hil-report", str(seen), "--out", str(tmp_path)])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["robot"] == "quadrotor" and report["commands"] == report["states"] == STEPS
    assert [(a["condition"], a["step"]) for a in report["adaptation"]] == [(CONDITION, 20), (CONDITION, 60)]
    assert report["tracking"] == {}  # it is too short: the first second counts for nothing


def test_the_state_of_a_payload_in_either_frame_is_the_same():
    brain = BRAINS["quadrotor"](ControlConfig(robot="quadrotor"), None)
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    p, r = rng.standard_normal(3), np.array([0.1, -0.2, -0.6])
    xyz = lambda x: SimpleNamespace(x=x[0], y=x[1], z=x[2])  # noqa: E731
    w, x, y, z = rotation_to_quaternion(turn)
    odom = SimpleNamespace(
        header=SimpleNamespace(frame_id="map"), child_frame_id="drone",
        pose=SimpleNamespace(pose=SimpleNamespace(position=xyz(p), orientation=SimpleNamespace(w=w, x=x, y=y, z=z))),
        twist=SimpleNamespace(twist=SimpleNamespace(linear=xyz(np.zeros(3)), angular=xyz(np.zeros(3)))),
    )  # fmt: skip
    payload = {
        frame: SimpleNamespace(header=SimpleNamespace(frame_id=frame), point=xyz(at))
        for frame, at in (("map", p + turn @ r), ("drone", r), ("lab", p), ("map ", np.full(3, math.nan)))
    }
    states = [brain.decode({"odom": odom, "payload": payload[frame]}) for frame in ("map", "drone")]
    np.testing.assert_allclose(states[0], states[1], atol=1e-12)
    with pytest.raises(convert.BadMessage, match="frame 'lab'; valid: 'map' or 'drone'"):
        brain.decode({"odom": odom, "payload": payload["lab"]})
    with pytest.raises(convert.BadMessage, match="not all finite"):
        brain.decode({"odom": odom, "payload": payload["map "]})


def test_an_attitude_target_says_the_same_as_the_command():
    """Only its numbers: the package that defines the message is not on every machine."""
    brain = BRAINS["quadrotor"](ControlConfig(robot="quadrotor"), None)
    message = SimpleNamespace(header=SimpleNamespace(frame_id=""), body_rate=SimpleNamespace(), type_mask=0, thrust=0.0)
    brain.fill_other(message, np.array([12.0, 0.5, -1.0, 2.0]))
    assert (message.body_rate.x, message.body_rate.y, message.body_rate.z) == (0.5, -1.0, 2.0)
    assert message.thrust == 0.5 and message.type_mask == 128 and message.header.frame_id == "base_link"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--condition", "payload:9:1"), "9 is outside 0.01 to 1"), (("--flight.vehicle", "brick"), "no vehicle 'brick'"),
        (("--flight.speed", "90"), "a lower speed"), (("--flight.target", "payload"), "has no payload"),
        (("--controller.k", "3"), "is an option of ant, not of quadrotor"),
    ],
)  # fmt: skip
def test_what_cannot_be_flown_is_refused_before_anything_starts(extra, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["ros", "quadrotor", "--duration", "1", *extra])
    assert stopped.value.code == 2 and words in capsys.readouterr().err


# --- while it flies


@pytest.fixture(scope="module")
def bench(tmp_path_factory, domain):
    # A seventh of real time, by /clock: on a busy machine a plan is then still ready within its period.
    made = Bench(tmp_path_factory.mktemp("bench"), domain, speed=0.15, robot="quadrotor")
    yield made
    made.close()


def test_the_load_changes_while_it_flies_and_nonsense_is_refused(bench):
    probe = bench.probe
    assert probe.set("robot", {"condition": "payload:0.4:0.8@5"}) == []
    at = len(probe.rows)
    assert probe.spin(30, lambda: sum(r.kind == STEP for _, r in probe.rows[at:]) > 40)
    thrust = [c.data[0] for c in probe.commands[-15:]]
    assert np.mean(thrust) > 12.0  # it carries 1.4 kg
    for value, words in (("payload:9:1", "outside"), ("leg:3", "unknown condition")):
        (reason,) = probe.set("robot", {"condition": value})
        assert words in reason and "valid: " in reason
    (reason,) = probe.set("robot", {"engine": "pybullet"})
    assert "start it again" in reason
    (reason,) = probe.set("controller", {"flight.adapter": "wishful"})
    assert "valid: frozen, last-layer, grbal, variational" in reason
    assert probe.set("robot", {"condition": "none"}) == []


def test_hold_relaxes_to_hovering_thrust_and_resume_goes_on(bench):
    probe = bench.probe
    bench.running()
    assert probe.call("hold").success
    at = len(probe.rows)
    assert probe.spin(30, lambda: sum(r.kind == MISS for _, r in probe.rows[at:]) > 25)
    assert all(r.cause == OPERATOR for _, r in probe.rows[at + 1 :])
    np.testing.assert_allclose(probe.commands[-1].data, [9.81, 0, 0, 0], atol=0.01)
    assert probe.call("resume").success
    bench.running()
    assert probe.call("reset_adaptation").success
    assert probe.spin(10, lambda: any(r.kind == RESET for _, r in probe.rows[at:]))
    bench.running()


@pytest.mark.parametrize("fault", ["nan", "names"])
def test_a_state_that_cannot_be_used_is_answered_by_the_guard(bench, fault):
    probe = bench.probe
    bench.running()
    at = len(probe.rows)
    probe.set("robot", {"fault": fault})
    assert probe.spin(30, lambda: sum(r.kind == MISS for _, r in probe.rows[at:]) > 5)
    probe.set("robot", {"fault": "none"})
    bench.running()
    assert all(((c.data >= bench.low) & (c.data <= bench.high)).all() for c in probe.commands)


def test_late_states_are_thrown_away_until_there_are_so_many_that_it_is_the_clock(bench):
    """More misses than the time on the way alone makes: 15 periods without a state, 60 with a late one, then plans from late ones."""
    probe = bench.probe
    bench.running()
    at, way = len(probe.rows), round(LATE_MS / 1e3 / bench.period)
    probe.set("robot", {"fault": "late"})

    def misses() -> int:
        return sum(r.kind == MISS for _, r in probe.rows[at:])

    assert probe.spin(60, lambda: misses() > way + PATIENCE // 2)
    assert probe.spin(60, lambda: probe.rows[-1][1].kind == STEP)
    assert misses() < way + 1.3 * PATIENCE
    probe.set("robot", {"fault": "none"})
    bench.running()
    assert probe.spin(BACK_S / bench.speed, bench.back) and not probe.crashes


def test_a_killed_controllers_last_command_acts_for_two_periods_at_most(bench):
    outcome = controller_killed(bench, np.random.default_rng(1))
    assert outcome.safe and outcome.recovered, outcome
    acted = [ms for _, ms in bench.probe.silences]
    assert acted and 1e3 * bench.period <= max(acted) <= 2e3 * bench.period


def test_plan_reference_and_robot_are_drawn_on_one_topic(bench):
    from visualization_msgs.msg import Marker, MarkerArray

    probe, seen = bench.probe, {}

    def take(m: MarkerArray) -> None:
        seen.update({(marker.ns, marker.id): marker for marker in m.markers})

    subscription = probe.create_subscription(MarkerArray, "markers", take, 10)
    names = {"robot", "plan", "reference", "path"}
    assert probe.spin(30, lambda: {ns for ns, _ in seen} >= names)
    probe.destroy_subscription(subscription)
    lines = {ns: m for (ns, _), m in seen.items() if ns != "robot"}
    assert all(m.type == Marker.LINE_STRIP and m.header.frame_id == "odom" for m in lines.values())
    plan = np.array([(p.x, p.y, p.z) for p in lines["plan"].points])
    body = next(m for (ns, i), m in seen.items() if ns == "robot" and i == 0)
    assert (
        len(plan) > 10
        and np.abs(plan[0] - [body.pose.position.x, body.pose.position.y, body.pose.position.z]).max() < 0.5
    )


def test_the_nodes_end_in_order(bench):
    for name, process in bench.nodes.processes.items():
        bench.nodes.stop(name)
        assert process.returncode == 0 and "Traceback" not in bench.nodes.output(name), bench.nodes.output(name)
    assert all(isinstance(p, subprocess.Popen) for p in bench.nodes.processes.values())
