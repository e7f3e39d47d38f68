"""What `sealegs refine` draws, keeps, and refuses."""

import json
from dataclasses import replace

import pytest
import torch

from controller.cli import main
from controller.config import ControllerConfig, PlannerConfig, weights_of
from controller.learn import short_legged
from controller.refine import RefineConfig, before_falls, refine
from dynamics import checkpoint
from dynamics.data import Rows, among
from dynamics.mlp import MLP
from dynamics.objectives import Sampler
from dynamics.train import ResumeError, TrainConfig
from dynamics.value import ValueConfig
from robots.ant import Ant

QUICK = RefineConfig(
    conditions=("healthy", "leg:0"), rounds=2, robots=8, steps=30, train=TrainConfig(steps=20, lr=2e-4),
    value=ValueConfig(steps=4, sweeps=2, newest=1.0),
    controller=ControllerConfig(planner=PlannerConfig(samples=16, horizon=2, iterations=1)),
)  # fmt: skip


def recorded(up: list[float], healthy: bool) -> Rows:
    """One episode whose torso's z axis is up[t] after step t."""
    n = len(up)
    s, after = torch.zeros(n, 31), torch.zeros(n, 31)
    after[:, 8] = torch.tensor(up)
    s[0, 8], s[1:, 8] = 1.0, after[:-1, 8]
    return Rows(
        s, torch.zeros(n, 8), after, torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64),
        torch.full((n,), healthy), torch.zeros(n, 12), torch.zeros(n) > 0,
    )  # fmt: skip


def test_what_comes_before_a_fall_of_a_healthy_robot_is_found_and_nothing_else():
    up = [1.0] * 10 + [0.1] + [-0.5] * 5 + [1.0] * 10
    assert before_falls(Ant(), recorded(up, True), 4).tolist() == [7, 8, 9, 10]
    assert before_falls(Ant(), recorded(up, False), 4).tolist() == []
    assert before_falls(Ant(), recorded([1.0] * 10, True), 4).tolist() == []


def test_a_share_of_a_batch_is_of_the_favoured_rows():
    everything = Sampler(torch.arange(1000), torch.arange(900, 1000), torch.arange(1000, 1100))
    rng = torch.Generator().manual_seed(0)
    drawn = everything.favouring(torch.tensor([3, 5]), 0.25).draw(400, rng)
    favoured = torch.isin(drawn, torch.tensor([3, 5])).sum()
    assert len(drawn) == 400 and 100 <= favoured <= 104
    assert (everything.draw(400, rng) >= 900).sum() >= 200  # as it was: half from the newest
    assert (drawn >= 900).sum() >= 150  # of the others still half
    held = torch.tensor([1000, 1003])
    for none in (torch.tensor([], dtype=torch.int64), held):
        rest = replace(everything, newest=0.0).favouring(none, 0.25).draw(400, rng)
        assert len(rest) == 400 and 0 < (rest >= 900).sum() < 80 and not (rest >= 1000).any()


def test_it_goes_on_where_it_was_cut_and_keeps_what_adapters_and_classifier_learned(tmp_path):
    ant, said = Ant(), []
    done = refine(ant, QUICK, tmp_path, said.append)
    first = done.read_bytes()
    assert len(said) == 2
    before, after = (checkpoint.load(p, "ant", ant.space) for p in (weights_of("ant", "effectiveness"), done))
    assert all(torch.equal(w, after.theta.meta[n]) for n, w in before.theta.meta.items())
    assert all(torch.equal(w, after.theta.risk[n]) for n, w in before.theta.risk.items())
    moved = max(float((w - after.theta.net[n]).abs().max()) for n, w in before.theta.net.items())
    assert 0 < moved < 0.1 and not torch.equal(before.theta.value["W0"], after.theta.value["W0"])
    assert after.record["refined"]["transitions"] == 2 * 8 * 30

    (tmp_path / "data" / "shard-00001.safetensors").unlink()  # as where it was killed during the second recording
    done.unlink()
    assert refine(ant, QUICK, tmp_path, said.append).read_bytes() == first and len(said) == 3
    with pytest.raises(ResumeError, match="share"):
        refine(ant, RefineConfig(**{**vars(QUICK), "share": 0.5}), tmp_path, said.append)


@pytest.mark.parametrize(
    "options",
    [
        ("--share", "1.5"), ("--robots", "7"), ("--before", "0"), ("--conditions", "leg:9"), ("--conditions", "leg:3@5"),
        ("--init", "/no/such"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_one_sentence(tmp_path, capsys, options):
    with pytest.raises(SystemExit) as stopped:
        main(["refine", "ant", "--out", str(tmp_path / "out"), *options])
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 2 and said.startswith("sealegs: ") and "\n" not in said
    assert options[1].split("@")[0] in said and not (tmp_path / "out").exists()


def test_its_settings_are_beside_its_result(tmp_path):
    refine(Ant(), QUICK, tmp_path, lambda text: None)
    kept = json.loads((tmp_path / "record.json").read_text())
    assert kept["config"]["share"] == QUICK.share and kept["before_falls"] >= 0 and len(kept["config"]["init"]) == 64


def test_value_and_chance_of_a_fall_are_fitted_to_robots_that_are_whole():
    told = torch.tensor([[1.0] * 8 + [0.0] * 4, [1.0] * 8 + [0.0, 1.0, 0.0, 0.0], [torch.nan] * 8 + [0.0] * 4])
    rows = Rows(*torch.zeros(5, 3), torch.tensor([True, False, False]), told, torch.zeros(3) > 0)  # pyright: ignore[reportArgumentType]
    short = short_legged(MLP(Ant.space, 8, 1, body=Ant.n_body), rows)
    assert short.tolist() == [False, True, False]
    assert among(rows, rows.healthy).told.tolist() == [told[0].tolist()] and among(rows, ~short).told.shape == (2, 12)
    assert among(rows, torch.zeros(3, dtype=torch.bool)) is rows
