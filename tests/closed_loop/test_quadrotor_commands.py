"""The quadrotor's commands, end to end, on both engines."""

import csv
import json

import numpy as np
import pytest

from controller import evaluate_quadrotor
from controller.baselines.pid import PID
from controller.cli import main
from controller.evaluate_quadrotor import COLUMNS
from controller.fly import fly
from controller.make_flyer import make_flyer
from dynamics.checkpoint import CheckpointError
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import parse
from robots.quadrotor_view import View
from robots.render import RenderError
from robots.trajectory import make
from robots.vehicle import load


def evaluated(out, *more: str) -> list[dict]:
    main(["evaluate", "quadrotor", "--out", str(out), *more])
    return json.loads((out / "table.json").read_text())


@pytest.mark.parametrize("engine", ["mujoco", "pybullet"])
def test_evaluate_writes_one_row_an_episode(engine, tmp_path):
    rows = evaluated(
        tmp_path, "--engine", engine, "--adapters", "pid", "nmpc", "--conditions", "none", "payload:0.3:0.6@40", "--seeds", "5", "6",
        "--steps", "60", "--trajectories", "hover", "circle", "--speeds", "0.6",
    )  # fmt: skip
    assert len(rows) == 2 * 2 * 2 * 2 and all(tuple(r) == COLUMNS for r in rows)
    assert {(r["trajectory"], r["speed"]) for r in rows} == {("hover", None), ("circle", "0.6")}
    assert all(r["engine"] == engine and r["target"] == "vehicle" and r["steps"] == 60 for r in rows)
    assert all(0 < r["rmse_m"] <= r["max_error_m"] and not r["crashed"] for r in rows)
    assert all(r["rmse_m"] < 0.1 and r["settle_s"] is None for r in rows)  # too short to settle in
    assert all(0 < r["step_ms_p50"] <= r["step_ms_p99"] and r["error_before"] is None for r in rows)
    with open(tmp_path / "table.csv") as f:
        assert len(list(csv.DictReader(f))) == len(rows)
    assert "x nmpc" in (tmp_path / "table.md").read_text()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["robot"] == "quadrotor" and config["engine"] == engine
    for name in ("flight-hover.png", "flight-circle-0.6.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_an_attach_is_settled_after_a_while(tmp_path):
    rows = evaluated(
        tmp_path, "--adapters", "pid", "--conditions", "none", "payload:0.3:0.6@100", "--seeds", "5", "--steps", "500", "--trajectories",
        "hover",
    )  # fmt: skip
    free, attached = rows
    assert free["settle_s"] is None and 0.1 < attached["settle_s"] < 3.0
    assert free["max_error_m"] < attached["max_error_m"]


def test_the_payload_tracks_on_the_small_vehicle(tmp_path):
    rows = evaluated(
        tmp_path, "--vehicle", "80g", "--target", "payload", "--adapters", "geometric", "nmpc-oracle", "--conditions", "payload:0.3:0.3",
        "payload:0.3:0.3+none@50", "--seeds", "5", "--steps", "80", "--trajectories", "random", "--speeds", "slow",
    )  # fmt: skip
    most = {"geometric": 0.3, "nmpc-oracle": 0.03}
    assert all(0 < r["rmse_m"] < most[r["adapter"]] and not r["crashed"] for r in rows) and len(rows) == 4
    # After the drop there is no payload whose error could settle.
    assert all(r["settle_s"] is None for r in rows)


def test_an_episode_is_the_same_whoever_shares_its_table(tmp_path):
    common = (
        "--adapters",
        "pid",
        "--conditions",
        "payload:0.3:0.6+gust:1",
        "--steps",
        "60",
        "--trajectories",
        "random",
    )
    both = evaluated(tmp_path / "a", *common, "--seeds", "5", "6")
    alone = evaluated(tmp_path / "b", *common, "--seeds", "6", "--no-timing")
    assert both[0]["step_ms_p50"] > 0 and alone[0]["step_ms_p50"] is None
    assert both[1]["rmse_m"] == pytest.approx(alone[0]["rmse_m"], rel=1e-6)
    assert both[0]["rmse_m"] != both[1]["rmse_m"]


def test_an_earlier_table_is_set_aside_with_its_plots(tmp_path, capsys):
    common = ("--adapters", "pid", "--conditions", "none", "--seeds", "1", "--steps", "5", "--no-timing")
    evaluated(tmp_path, *common, "--trajectories", "hover")
    first = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert "moved" not in capsys.readouterr().out
    evaluated(tmp_path, *common, "--trajectories", "circle")
    assert f"the earlier table was moved to: {tmp_path / 'earlier-1'}\n" in capsys.readouterr().out
    assert {p.name: p.read_bytes() for p in (tmp_path / "earlier-1").iterdir()} == first
    assert not (tmp_path / "flight-hover.png").exists() and (tmp_path / "flight-circle-medium.png").exists()


def test_the_rows_of_finished_controllers_outlive_a_fault_in_the_next(tmp_path, monkeypatch):
    real, calls = evaluate_quadrotor.fly, []

    def faulty(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise MemoryError
        return real(*args, **kwargs)

    monkeypatch.setattr(evaluate_quadrotor, "fly", faulty)
    with pytest.raises(MemoryError):
        evaluated(tmp_path, "--adapters", "pid", "geometric", "--conditions", "none", "--seeds", "1", "--steps", "5")
    assert [r["adapter"] for r in json.loads((tmp_path / "table.json").read_text())] == ["pid"]


@pytest.mark.parametrize("engine", ["mujoco", "pybullet"])
def test_demo_writes_summary_and_plot(engine, tmp_path):
    main(
        ["demo", "quadrotor", "--out", str(tmp_path), "--seed", "3", "--no-video", "--steps", "90", "--seeds", "1", "--engine", engine]
    )  # fmt: skip
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [c["adapter"] for c in summary["controllers"]] == ["variational", "frozen"] and summary["engine"] == engine
    assert summary["onsets"] == [30, 60] and summary["seeds"] == [3] and summary["video"] is None
    for c in summary["controllers"]:
        free, loaded, _ = (stage["rmse_m"] for stage in c["stages"])
        assert c["crashed"] == 0 and 0 < free < 0.1 and 0 < loaded < 0.3
    learned, frozen = (c["stages"][1]["rmse_m"] for c in summary["controllers"])
    assert learned < frozen and summary["controllers"][0]["error_after"] < summary["controllers"][0]["error_before"]
    assert (tmp_path / "demo.png").stat().st_size > 10_000 and not (tmp_path / "demo.mp4").exists()


def test_learn_makes_weights_for_the_vehicle_it_is_told(tmp_path):
    out = tmp_path / "learn"
    main(
        ["learn", "quadrotor", "--out", str(out), "--vehicle", "80g", "--flights", "8", "--batches", "1", "--steps", "60", "--windows", "4",
         "--train.steps", "3", "--meta.steps", "2", "--meta.validate-every", "1"]
    )  # fmt: skip
    names = [f"quadrotor{suffix}.safetensors" for suffix in ("", "-last-layer", "-grbal")]
    assert all((out / name).stat().st_size < 2_000_000 for name in names)
    make_flyer("variational", Quadrotor("80g", payload_seen=True), "vehicle", out / names[0])
    with pytest.raises(CheckpointError, match="is for vehicle '80g'"):
        make_flyer("variational", Quadrotor("1kg", payload_seen=True), "vehicle", out / names[0])


def test_the_film_shows_vehicle_cable_and_payload(tmp_path):
    try:
        view = View(load("80g"))
    except RenderError as e:
        pytest.skip(str(e))
    at, path = np.array([0.0, 0, 2.0]), np.array([[0.0, 0, 2], [0.5, 0, 2]])
    with view:
        bare = view.draw(at, np.eye(3), None, False, path, path).astype(int)
        loose, hooked = (view.draw(at, np.eye(3), at - [0, 0, 0.6], h, path, path).astype(int) for h in (False, True))
        away = view.draw(at + np.array([5.0, 0, 0]), np.eye(3), None, False, path, path).astype(int)
    ball, cable, vehicle = (
        int((np.abs(a - b).max(-1) > 30).sum()) for a, b in ((loose, bare), (hooked, loose), (bare, away))
    )
    assert 20 < ball < 2000 and 20 < cable < 1000 and vehicle > 50
    main(
        [
            "demo",
            "quadrotor",
            "--out",
            str(tmp_path),
            "--steps",
            "24",
            "--seeds",
            "1",
            "--controllers",
            "pid",
            "geometric",
        ]
    )
    assert (tmp_path / "demo.mp4").stat().st_size > 2_000


def test_what_a_learned_controller_says_of_itself_is_recorded():
    from typing import NamedTuple

    class Said(NamedTuple):
        error_before: np.ndarray
        error_after: np.ndarray
        adapt_ms: float
        plan_ms: float

    class Memory(NamedTuple):
        inner: object
        step: int
        diagnostics: Said | None = None

    class Talking:
        """A PID that says what step it is at."""

        def __init__(self) -> None:
            self.pid = PID(load("1kg"))
            self.preview = self.pid.preview

        def init(self, b: int) -> Memory:
            return Memory(self.pid.init(b), 0)

        def step(self, state, reference, memory):
            command, inner = self.pid.step(state, reference, memory.inner)
            n = float(memory.step)
            said = Said(np.full(len(state), n), np.full(len(state), n / 2), 0.1 * n, 1.0)
            return command, Memory(inner, memory.step + 1, said)

    robot = Quadrotor("1kg")
    schedule, path = parse("none", robot.vehicle), make("hover")
    told = fly(Talking(), robot, [path] * 2, [schedule] * 2, [0, 1], 4)
    silent = fly(PID(robot.vehicle), robot, [path] * 2, [schedule] * 2, [0, 1], 4)
    np.testing.assert_array_equal(told.error_before, [[0, 1, 2, 3]] * 2)
    np.testing.assert_array_equal(told.error_after, np.array([[0, 1, 2, 3]] * 2) / 2)
    np.testing.assert_allclose(told.adapt_ms, [0, 0.1, 0.2, 0.3])
    assert (
        np.isnan(silent.error_before).all() and silent.error_before.shape == (2, 4) and np.isnan(silent.adapt_ms).all()
    )
    np.testing.assert_array_equal(told.states, silent.states)
    robot.close()
