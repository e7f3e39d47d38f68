"""`sealegs bench` at sizes that only show that it runs and what it writes."""

import json

import numpy as np
import pytest
import torch

from controller import bench, peer, workload
from controller.workload import Size
from dynamics import checkpoint
from dynamics.types import as_phi

TINY = bench.BenchConfig(
    sizes=(Size(16, 2), Size(24, 3)),
    rounds=2,
    k=4,
    states=3,
    ranked=Size(40, 3),
    top=10,
    collected=bench.Collected(2, 5, 2),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random ones, as made where none are shipped."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "weights_of", lambda robot, adapter: path)
        w = workload.make(0, None, k=4, robots=3, width=16, depth=2)
    assert w.weights == "random"
    checkpoint.save(path, w.robot.name, w.model, w.theta, {})
    return path


@pytest.fixture(scope="module")
def result(tmp_path_factory, weights):
    out = tmp_path_factory.mktemp("bench")
    before = torch.get_num_threads(), torch.get_rng_state()
    written = bench.run(out, 0, weights, TINY)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert json.loads((out / "bench.json").read_text()) == json.loads(json.dumps(written))
    return written


def test_every_work_has_a_row_of_finite_numbers(result):
    for size in ("16 x 2", "24 x 3"):
        works = {r["work"] for r in result["rows"] if r["size"] == size}
        timed = ("gemm", "rollout", "plan", "step", "mppi")
        precisions = ("float32", "bfloat16") if result["machine"]["bfloat16"] else ("float32",)
        assert {w for w in works if "float" in w} == {f"{w} {p}" for w in timed for p in precisions}
        done = {r["work"]: r["gflop"] for r in result["rows"] if r["size"] == size}
        # Products done in C are counted too.
        assert done["gemm float32"] <= done["rollout float32"] <= done["mppi float32"] < done["step float32"]
    adapters = {r["work"] for r in result["rows"] if r["size"] == "k = 4"}
    assert adapters >= {"adapt frozen", "adapt grbal", "adapt last-layer", "adapt effectiveness"}
    for row in result["rows"]:
        numbers = [v for v in row.values() if isinstance(v, float)]
        assert np.isfinite(numbers).all() and 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["work"] != bench.GEMM or row["of_float32_gemm"] == pytest.approx(1)


def test_it_says_what_was_measured_and_where(result, weights):
    assert result["weights"] == str(weights) and result["network"] == {"width": 16, "depth": 2, "ensemble": 1}
    assert result["config"]["sizes"][0] == {"samples": 16, "horizon": 2}
    assert result["machine"]["threads"] == 1 and result["machine"]["torch"] == torch.__version__
    assert {"cpu", "cores"} <= result["machine"].keys() and "bench --seed 0" in result["command"]


def test_the_peer_is_measured_or_the_reason_is_given(result):
    if peer.missing():
        assert "pip install" in result["peer"]["skipped"]
        return
    assert [s["size"] for s in result["peer"]["sizes"]] == ["16 x 2", "24 x 3"]
    for row in (r for s in result["peer"]["sizes"] for r in s["against"]):
        assert 0 < row["low"] <= row["ratio"] <= row["high"] and row["at_most"] > 0


def test_the_ranking_is_over_every_state(result):
    r = result["ranking"]
    assert len(r["spearman"]) == len(r["overlap"]) == 3
    assert r["spearman_min"] > 0.9 and 0 <= r["overlap_min"] <= 10


@pytest.mark.skipif(peer.missing() is not None, reason=str(peer.missing()))
def test_collecting_is_held_against_the_bare_simulator(result):
    c = result["collect"]
    assert (c["robots"], c["steps"], c["rounds"]) == (2, 5, 2) and c["of_bare"]["low"] <= c["of_bare"]["high"]
    assert 0 < c["transitions_per_s"] < c["bare_transitions_per_s"]  # it does what the bare simulator does, and more


@pytest.mark.parametrize("shipped", [False, True], ids=["tiny", "shipped, with parameters of the body"])
def test_the_peer_runs_the_same_network(shipped, weights):
    w = workload.make(0, None if shipped else weights, k=4, robots=2)
    assert (w.model.body > 0) == shipped
    s, a = w.walk[:, -1], w.actions[:, -1]
    mean = w.model.predict(as_phi(w.theta), s[:, None], a[:, None]).mean[:, 0]
    torch.testing.assert_close(peer.Network(w.model, w.theta)(s, a), w.model.space.retract(s, mean))


def test_a_ratio_of_medians_lies_in_its_interval():
    rng = np.random.default_rng(0)
    drift = rng.uniform(1, 3, 200)  # a machine that slows down and recovers
    got = bench.ratio(2 * drift * rng.normal(1, 0.02, 200), drift * rng.normal(1, 0.02, 200), rng)
    assert got["low"] < 2 < got["high"] and got["high"] - got["low"] < 0.2


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match=r"nothing\.safetensors"):
        bench.run(tmp_path, 0, tmp_path / "nothing.safetensors", TINY)
