"""The mean recovery of a few ants with a small search: what is written down is what was run."""

import json
import sys

import numpy as np
import pytest

from controller import recovery, score

SMALL = [
    "--controller.planner.samples",
    "8",
    "--controller.planner.horizon",
    "2",
    "--controller.planner.iterations",
    "1",
]


def run(monkeypatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["recovery", *SMALL, *options])
    recovery.main()


def test_what_is_kept_is_the_mean_over_the_seeds(tmp_path, monkeypatch):
    run(monkeypatch, "--condition", "leg:3@20", "--seeds", "5", "6", "--steps", "180", "--out", str(tmp_path / "out"))
    frozen = json.loads((tmp_path / "out/recovery.json").read_text())["controllers"][1]
    mean = np.array(frozen["mean_m_s"])
    assert frozen["adapter"] == "frozen" and len(mean) == 180 and len(frozen["of_each_s"]) == 2
    assert frozen["steady_m_s"] == pytest.approx(mean[20 + round(score.SPAN_S / 0.05) :].mean(), abs=1e-3)
    assert frozen["before_m_s"] == pytest.approx(mean[:20].mean(), abs=1e-3)
    assert frozen["low_s"] <= frozen["recover_s"] <= frozen["high_s"]
    assert (tmp_path / "out/recovery.png").stat().st_size > 10_000 and "| frozen |" in (
        tmp_path / "out/recovery.md"
    ).read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--condition", "leg:3"), "valid: an onset"),
        (("--condition", "leg:9@100"), "leg:9"),
        (("--steps", "300"), "300 steps"),
        (("--seeds", "5", "5"), "seeds"),
    ],
)
def test_what_tells_nothing_is_refused(options, named, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *options, "--out", str(tmp_path / "out"))
    assert stopped.value.code == 2 and named in capsys.readouterr().err and not (tmp_path / "out").exists()
