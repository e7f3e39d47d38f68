"""A flight's recording into a dataset: the states that were flown, with what no message says, and what hung on the cable."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from lockstep import edited

from controller.cli import main
from controller.ros import bag, convert
from controller.ros.brains import BRAINS
from controller.ros.controller_config import ControlConfig
from controller.ros.flight_config import FlightConfig, make_robot
from controller.ros.subjects import SETTLED
from dynamics import data
from robots.quadrotor_condition import parse

STEPS, CONDITION, SEED = 120, "payload:0.3:0.6@30+none@80", 4
N_STATE, N_ACTION = 22, 4


@pytest.fixture(scope="module")
def flight(tmp_path_factory, domain) -> Path:
    path = tmp_path_factory.mktemp("flight") / "bag"
    main(
        ["ros", "quadrotor", "--lockstep", "--duration", str(STEPS / 100), "--record", str(path), "--condition", CONDITION,
         "--seed", str(SEED), "--domain", str(domain)]
    )  # fmt: skip
    return path


def flown(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The simulator's own states (t, 22) and actions (t, 4), from the recorded commands."""
    robot = make_robot(FlightConfig())
    brain = BRAINS["quadrotor"](ControlConfig(robot="quadrotor", seed=SEED), None)
    schedule = parse(CONDITION, robot.vehicle)
    robot.reset([schedule.at(0)], [SEED], brain.path.at(np.zeros(1)).p)
    states, actions = [robot.state()[0]], []
    commands = [np.array(m.content.data) for m in bag.read(path) if m.topic.endswith("/commands")]
    for i, command in enumerate(commands):
        robot.conditions = [schedule.at(i)]
        actions.append(robot.vehicle.action(command))
        states.append(robot.step(actions[-1][None])[0])
    return np.array(states), np.array(actions)


def test_what_was_flown_is_what_learning_reads(flight, tmp_path):
    main(["collect", "quadrotor", "--from-bag", str(flight), "--out", str(tmp_path / "data")])
    s, a = flown(flight)
    got = data.load(tmp_path / "data", "quadrotor", N_STATE, N_ACTION)
    n = STEPS - 1
    # Left out: transitions from and to states of which a part is not known. The rotors' thrust shows what came before the recording for a while,
    # and so does the payload's velocity for its first two positions; it hangs in states 31 to 80.
    lag = math.ceil(SETTLED * make_robot(FlightConfig()).vehicle.rotor_time_constant_s / 0.01)
    unknown = {*range(lag), 31, 32}
    kept = [i for i in range(n) if not {i, i + 1} & unknown]
    assert lag < 30 and got.n == len(kept)
    np.testing.assert_allclose(got.a.numpy(), a[kept], atol=1e-6)
    for ours, theirs in ((got.s.numpy(), s[kept]), (got.s_next.numpy(), s[[i + 1 for i in kept]])):
        np.testing.assert_allclose(ours[:, :15], theirs[:, :15], atol=1e-5)
        np.testing.assert_allclose(ours[:, 15], theirs[:, 15], rtol=1e-4)  # thrust, from the commands
        np.testing.assert_allclose(ours[:, 16:19], theirs[:, 16:19], atol=1e-5)
        np.testing.assert_allclose(
            ours[:, 19:], theirs[:, 19:], atol=0.01
        )  # velocity of the payload, from its positions
    assert np.abs(s[35:80, 19:]).max() > 0.1
    episodes = got.episode.tolist()
    # It is hooked on in the step that ends in state 31, and let go in the one that ends in 81.
    assert [episodes.count(e) for e in sorted(set(episodes))] == [30 - lag, 47, n - 80]


def learned(folder: Path, recordings: int) -> None:
    """Beside which nothing is gathered."""
    sizes = f"--batches {recordings} --width 4 --depth 1 --batch 8 --train.steps 3 --meta.steps 2 --meta.validate-every 1 --windows 2 --past 4"
    main(["learn", "quadrotor", "--out", str(folder), *sizes.split()])
    assert len(data.shards(folder / "data")) == recordings
    assert (folder / "quadrotor.safetensors").is_file()


def test_learning_is_told_what_hung_on_the_cable_and_trains_on_it(flight, tmp_path):
    for _ in range(3):
        main(["collect", "quadrotor", "--from-bag", str(flight), "--out", str(tmp_path / "data")])
    first = data.read_shard(data.shards(tmp_path / "data")[0], "quadrotor", N_STATE, N_ACTION)[1]
    (text,) = first["conditions"]
    loads = [parse(text, make_robot(FlightConfig()).vehicle).at(i).payload for i in range(STEPS)]
    assert (0.3, 0.6) in loads and loads[0] is loads[-1] is None
    learned(tmp_path, 3)


def test_of_a_real_vehicle_nothing_is_claimed(flight, tmp_path):
    """Nobody announces its condition, and no settings are needed."""
    path = edited(
        flight,
        tmp_path / "bag",
        lambda m: None if m.topic.endswith(("/condition", "/config", "/telemetry")) else m.content,
    )
    for _ in range(8):  # an episode each, of which one is held out
        main(["collect", "quadrotor", "--from-bag", str(path), "--out", str(tmp_path / "data")])
    for shard in data.shards(tmp_path / "data"):
        tensors, meta = data.read_shard(shard, "quadrotor", N_STATE, N_ACTION)
        assert "conditions" not in meta and tensors["a"].shape[1] > STEPS / 2
    learned(tmp_path, 8)


def test_another_vehicle_or_robot_is_named(flight, recording, tmp_path, capsys):
    out = ["--out", str(tmp_path / "data")]
    for argv, words in (
        (
            ["quadrotor", "--from-bag", str(flight), "--vehicle", "80g"],
            "vehicle '1kg'; valid: of '80g', or --vehicle 1kg",
        ),
        (["--from-bag", str(flight), "quadrotor"], "comes after options"),
        (["quadrotor", "--from-bag", str(recording)], "robot 'ant'; valid: of 'quadrotor'"),
        (["ant", "--from-bag", str(flight)], "robot 'quadrotor'; valid: of 'ant'"),
        (["quadrotor", "--from-bag", str(flight), "--vehicle", "brick"], "brick"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["collect", *argv, *out])
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and words in said and len(said.strip().splitlines()) == 1
        assert not (tmp_path / "data").exists()
    with pytest.raises(SystemExit) as stopped:
        main(["collect", "quadrotor", *out])
    assert stopped.value.code == 2


def test_a_condition_that_nobody_could_have_announced_is_named(flight, tmp_path, capsys):
    def nonsense(m: bag.Message):
        if not m.topic.endswith("/condition"):
            return m.content
        said = json.loads(m.content.data)
        del said["stamp"]
        return type(m.content)(data=json.dumps(said))

    path = edited(flight, tmp_path / "bag", nonsense)
    with pytest.raises(SystemExit) as stopped:
        main(["collect", "quadrotor", "--from-bag", str(path), "--out", str(tmp_path / "data")])
    assert stopped.value.code == 2 and "an announced condition" in capsys.readouterr().err


def test_recordings_that_are_added_to_a_training_that_began_are_refused(flight, tmp_path, capsys):
    for _ in range(3):
        main(["collect", "quadrotor", "--from-bag", str(flight), "--out", str(tmp_path / "data")])
    learned(tmp_path, 3)
    main(["collect", "quadrotor", "--from-bag", str(flight), "--out", str(tmp_path / "data")])
    with pytest.raises(SystemExit) as stopped:
        learned(tmp_path, 3)
    assert stopped.value.code == 2 and "data_sha256" in capsys.readouterr().err


def test_a_clock_that_jumps_far_ends_an_episode_and_costs_no_time(flight, tmp_path, capsys):
    """As that of a computer without a battery does when it finds the network."""
    at, month = 60 * 10_000_000, 30 * 24 * 3600

    def late(m: bag.Message):
        if m.topic in ("/odom", "/payload") and convert.stamp_of(m.content) >= at:
            stamp = replace(m.content.header.stamp, sec=m.content.header.stamp.sec + month)
            return replace(m.content, header=replace(m.content.header, stamp=stamp))
        return m.content

    path = edited(flight, tmp_path / "bag", late)
    argv = ["collect", "quadrotor", "--from-bag", str(path), "--out", str(tmp_path / "data")]
    with pytest.raises(SystemExit):
        main(argv)
    assert "a gap of" in capsys.readouterr().err
    main([*argv, "--skip-bad"])
    assert 20 < data.load(tmp_path / "data", "quadrotor", N_STATE, N_ACTION).n < 60
