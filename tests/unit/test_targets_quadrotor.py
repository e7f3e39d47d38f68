"""What is judged from the quadrotor's tables: pairs, intervals, settling, crashes, and what the other engine keeps."""

import csv
import json

import pytest

from controller.cli import main
from controller.config import UsageError
from controller.evaluate_quadrotor import COLUMNS
from controller.targets_quadrotor import TargetsConfig, describe, gather, judge, targets

SEEDS = range(6)


def row(adapter: str, seed: int, rmse: float | None, **more) -> dict:
    values = {
        "robot": "quadrotor", "engine": "mujoco", "target": "vehicle", "trajectory": "circle", "speed": "fast", "condition": "a",
        "adapter": adapter, "seed": seed, "steps": 500, "rmse_m": rmse, "max_error_m": rmse, "settle_s": None, "crashed": False,
        "error_before": None, "error_after": None, "step_ms_p50": 5.0, "step_ms_p99": 8.0,
    }  # fmt: skip
    return {c: (values | more)[c] for c in COLUMNS}


def table(**more) -> list[dict]:
    """The learned controller makes a tenth of nmpc's error, whatever the seed makes of both."""
    ours = [row("variational", s, 0.001 * (1 + s), **more) for s in SEEDS]
    return ours + [row("nmpc", s, 0.01 * (1 + s), **more) for s in SEEDS]


def of(found: dict, against: str, **where) -> dict:
    (one,) = [r for r in found["ratios"] if r["against"] == against and all(r[k] == v for k, v in where.items())]
    return one


def test_a_constant_factor_is_found_without_spread():
    r = of(judge(table(), "variational"), "nmpc", condition="all")
    assert r["ratio"] == pytest.approx(0.1) and r["low"] == pytest.approx(0.1) and r["high"] == pytest.approx(0.1)
    assert r["rmse_mm"] == pytest.approx(3.5) and r["seeds"] == len(SEEDS)


def test_only_what_both_flew_is_compared():
    rows = [
        *table(),
        row("variational", 99, 5.0),
        row("nmpc", 98, 7.0),
        row("variational", 97, None),
        row("nmpc", 97, 1.0),
    ]
    rows += [row("variational", 96, 1.0, steps=300), row("nmpc", 96, 1.0)]
    assert of(judge(rows, "variational"), "nmpc", condition="all")["ratio"] == pytest.approx(0.1)


def test_conditions_are_pooled_by_seed_and_told_apart():
    rows = table(condition="a") + [
        r | {"rmse_m": 0.1} if r["adapter"] == "variational" else r for r in table(condition="b")
    ]
    found = judge(rows, "variational")
    assert of(found, "nmpc", condition="a")["ratio"] == pytest.approx(0.1)
    assert of(found, "nmpc", condition="b")["ratio"] == pytest.approx(0.1 / 0.035)
    pooled = of(found, "nmpc", condition="all")
    assert pooled["ratio"] == pytest.approx((0.0035 + 0.1) / 0.07) and pooled["seeds"] == 6 and pooled["episodes"] == 12


def test_engines_and_targets_are_never_mixed_and_what_is_kept_is_the_ratio_of_gains():
    worse = [r | {"rmse_m": 4 * r["rmse_m"]} if r["adapter"] == "variational" else r for r in table(engine="pybullet")]
    found = judge(table() + worse + table(target="payload"), "variational")
    assert of(found, "nmpc", condition="all", engine="pybullet")["ratio"] == pytest.approx(0.4)
    (kept,) = found["kept"]  # the payload flew on one engine
    assert kept["target"] == "vehicle" and kept["gain_mujoco"] == pytest.approx(0.9)
    assert kept["kept"] == pytest.approx(0.6 / 0.9) and kept["low"] == pytest.approx(0.6 / 0.9)


def test_settling_and_crashes_are_counted():
    rows = [row("variational", s, 0.01, settle_s=t, crashed=s == 3) for s, t in enumerate((0.2, 0.9, 1.0, 1.7))]
    found = judge(rows, "variational")
    (settled,) = found["settling"]
    assert settled["within"] == 3 and settled["episodes"] == 4 and settled["largest_s"] == 1.7
    assert settled["mean_s"] == pytest.approx(0.95) and settled["low_s"] < 0.95 < settled["high_s"]
    assert found["crashes"] == [{"adapter": "variational", "episodes": 4, "crashed": 1}]
    assert found["step_ms"] == {"p50": 5.0, "p99": 8.0, "p99_largest": 8.0}
    untimed = judge([r | {"step_ms_p50": None, "step_ms_p99": None} for r in rows], "variational")
    assert untimed["step_ms"] is None and "for one vehicle" not in describe(untimed)


def test_the_command_joins_tables_and_writes_every_row(tmp_path, capsys):
    for name, rows in (("a", table()), ("b", table(engine="pybullet"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.json").write_text(json.dumps(rows))
    out = tmp_path / "out"
    main(["targets", "quadrotor", "--tables", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)])
    assert "0.100 [0.100, 0.100]" in capsys.readouterr().out
    assert json.loads((out / "targets.json").read_text())["kept"][0]["kept"] == pytest.approx(1.0)
    with open(out / "table.csv", newline="") as f:
        assert len(list(csv.DictReader(f))) == 24
    text = (out / "table.md").read_text()
    assert all(f"## {engine}, vehicle on the trajectory, 500 steps" in text for engine in ("mujoco", "pybullet"))


def test_what_cannot_be_judged(tmp_path):
    with pytest.raises(UsageError, match="--tables is empty"):
        gather(())
    with pytest.raises(UsageError, match=r"no table at .*; valid: a folder"):
        gather((tmp_path,))
    path = tmp_path / "table.json"
    path.write_text('[{"speed": 1}]')
    with pytest.raises(UsageError, match="is no table of the quadrotor"):
        gather((tmp_path,))
    path.write_text(json.dumps(table()))
    with pytest.raises(UsageError, match="valid: every episode once"):
        gather((tmp_path, tmp_path))
    with pytest.raises(UsageError, match="adapter 'magic' flew nothing in these tables; valid: variational, nmpc"):
        targets(TargetsConfig((tmp_path,), "magic", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
