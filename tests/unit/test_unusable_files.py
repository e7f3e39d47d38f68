"""Checkpoints and datasets that cannot be used are refused, with the reason in one sentence, and left as they are."""

import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from refusals import FIT, digests, refused, respoil, run_evaluate
from safetensors.torch import save_file

from controller import cli, workload
from controller.config import weights_of
from controller.flyer import N_Z, ROWS
from controller.learn_quadrotor import recorded
from controller.make_flyer import make_flyer
from dynamics import checkpoint, data
from dynamics.adapt.gradient import INNER_STEPS
from dynamics.mlp import MLP
from dynamics.residual import Residual
from dynamics.types import Params
from robots.ant import Ant
from robots.quadrotor import Quadrotor


@pytest.mark.parametrize("adapter", ["online-sgd", "grbal", "last-layer", "effectiveness", "effectiveness+last-layer"])
def test_a_checkpoint_that_was_not_trained_for_the_adapter(adapter, made, tmp_path, capsys):
    error = refused(capsys, *run_evaluate(made / "ant.safetensors", tmp_path / "out", "--adapters", adapter))
    assert repr(adapter.split("+")[0]) in error and "valid: frozen, or" in error


def test_a_missing_specialist(made, tmp_path, capsys):
    argv = run_evaluate(made / "ant.safetensors", tmp_path / "out", "--adapters", "specialist", "--conditions", "leg:3")
    error = refused(capsys, *argv, "--specialists", tmp_path)
    assert "'leg:3'" in error and str(tmp_path / "leg_3.safetensors") in error and "sealegs learn" in error


def foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


BAD = {
    "missing": (lambda p: p.unlink(), "no checkpoint"),
    "folder": (lambda p: (p.unlink(), p.mkdir()), "no checkpoint"),
    "empty": (lambda p: p.write_bytes(b""), "truncated or not a safetensors"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-100]), "truncated or not a safetensors"),
    "text": (lambda p: p.write_text("These are not the weights.\n" * 100), "truncated or not a safetensors"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"net": [1, 2, 3]})), "truncated or not a safetensors"),
    "torch.save": (lambda p: torch.save({"net": torch.zeros(3)}, p), "truncated or not a safetensors"),
    "foreign safetensors": (foreign, "was not written by sealegs"),
    "another robot's": (lambda p: shutil.copy(p.with_name("cheetah.safetensors"), p), "'cheetah', wanted 'ant'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_checkpoint(kind, own, tmp_path, capsys):
    path, out = own / "ant.safetensors", tmp_path / "out"
    spoil, sentence = BAD[kind]
    spoil(path)
    for argv in (
        run_evaluate(path, out),
        ("demo", "--weights", path, "--out", out),
        ("collect", "--out", out, "--policy", "planner", "--weights", path),
        ("train", "--data", own / "data", "--init", path, "--out", out, *FIT),
        ("bench", "--weights", path, "--out", out),
    ):
        error = refused(capsys, *argv)
        assert sentence in error and str(path) in error, error
        assert not out.exists()


HALF = {
    "effectiveness": {"effectiveness.gamma": None, "effectiveness.sigma": None, "effectiveness.precision": (7,), "effectiveness.inflation": (2,)},
    "online-sgd": {"online-sgd.log_rate": (3,)},
    "last-layer": {"last-layer.log_noise": None, "last-layer.log_prior": (4,), "last-layer.logit_gamma": (1,)},
    "grbal": {"grbal.log_rate.W0": None, "grbal.log_rate.K": (2,), "grbal.steps": (3,)},
}  # fmt: skip


@pytest.mark.parametrize("adapter", [*HALF, "effectiveness+last-layer"])
def test_a_checkpoint_of_which_half_of_an_adapter_is_gone(adapter, made, tmp_path, capsys):
    loaded = checkpoint.load(made / "ant.safetensors", "ant", Ant.space)
    meta = workload._fresh_meta(loaded.model, loaded.theta) | {INNER_STEPS: torch.tensor(2.0)}
    path, out = tmp_path / "half.safetensors", tmp_path / "out"

    def save(meta: Params) -> None:
        checkpoint.save(path, "ant", loaded.model, loaded.theta._replace(meta=meta), {})

    commands = [run_evaluate(path, out, "--adapters", adapter)]
    if adapter == "effectiveness":
        commands.append(("refine", "--init", path, "--out", out, "--controller.adapter", "frozen"))
    else:
        commands.append(("train", "--data", made / "data", "--init", path, "--out", out, "--adapter", adapter, *FIT))
    for part in adapter.split("+"):
        for name, shape in HALF[part].items():
            spoilt = {n: w for n, w in meta.items() if n != name} | ({} if shape is None else {name: torch.ones(shape)})
            save(spoilt)
            for argv in commands:
                if (argv[0], name) != ("train", "effectiveness.sigma"):  # which it says in words of its own
                    error = refused(capsys, *argv)
                    assert f"{path}: meta.{name} has shape {shape}, wanted (" in error and f"'{part}' is whole" in error
                    assert not out.exists()
    save(meta)
    cli.main([str(a) for a in run_evaluate(path, out, "--adapters", adapter)])  # whole it is taken


def test_a_quadrotors_checkpoint_of_which_half_of_an_adapter_is_gone(tmp_path):
    robot = Quadrotor("1kg", "mujoco", payload_seen=True)
    for adapter, name in (("variational", "keep"), ("last-layer", "log_prior"), ("grbal", "log_rate.b1")):
        loaded = checkpoint.load(weights_of("quadrotor", adapter), "quadrotor", ROWS)
        for change in ({}, {f"{adapter}.{name}": torch.ones(3)}):
            meta = {n: w for n, w in loaded.theta.meta.items() if n != f"{adapter}.{name}"} | change
            checkpoint.save(tmp_path / "q", "quadrotor", loaded.model, loaded.theta._replace(meta=meta), loaded.record)
            with pytest.raises(checkpoint.CheckpointError, match=rf"{tmp_path / 'q'}: meta.{adapter}.{name} has shape"):
                make_flyer(adapter, robot, "vehicle", tmp_path / "q")
    robot.close()


def put(value: float):
    def change(x: torch.Tensor) -> torch.Tensor:
        x[2, 3, 4] = value
        return x

    return change


BAD_DATA = {
    "nan": ({"s_next": put(torch.nan)}, r"s_next\[2, 3, 4\] is nan; every value must be finite"),
    "action": ({"a": put(-1.7)}, r"an action of 1\.7 is out of bounds \[-1, 1\]"),
    "shape": ({"a": lambda a: a[..., :7].contiguous()}, r"a has shape \(8, 10, 7\), wanted \(b, t, 8\)"),
    "robot": ({"meta": {"robot": "cheetah"}}, "robot 'cheetah', wanted 'ant'"),
    "foreign": ({"meta": None}, "robot None, wanted 'ant'"),
    "no list of conditions": (
        {"meta": {"robot": "ant", "conditions": 5}},
        "conditions are 5; valid: a list with one for each robot",
    ),
    "conditions that are no texts": (
        {"meta": {"robot": "ant", "conditions": [1] * 8}},
        r"conditions are \[1, 1.*; valid: a list",
    ),
    "unknown condition": (
        {"meta": {"robot": "ant", "conditions": ["healthy"] * 7 + ["limp"]}},
        "unknown condition 'limp'.*; valid: healthy, leg",
    ),
    "a change": (
        {"meta": {"robot": "ant", "conditions": ["leg-short:3@20"] * 8}},
        "'leg-short:3@20' changes in mid-run.*; valid: .* without @STEP",
    ),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_a_bad_dataset_is_refused_and_left_as_it_is(kind, own, tmp_path, capsys):
    changes, sentence = BAD_DATA[kind]
    cli.main(["collect", "--out", str(own / "data"), "--robots", "8", "--steps", "10", "--seed", "1"])
    respoil(own / "data", **changes)
    before = digests(own)
    error = refused(capsys, "train", "--data", own / "data", "--out", tmp_path / "out", *FIT)
    assert re.search(sentence, error) and "shard-00000.safetensors" in error, error
    assert digests(own) == before


def test_a_quadrotors_recording_under_a_condition_that_means_nothing(tmp_path):
    robot = Quadrotor("1kg", "mujoco", payload_seen=True)
    meta = {"robot": "quadrotor", "vehicle": "1kg", "conditions": ["none", "payload:9"]}
    path = data.append(
        tmp_path, torch.zeros(2, 3, 22), torch.zeros(2, 3, 4), torch.zeros(2, 3, 22), torch.zeros(2, 3), meta
    )
    with pytest.raises(data.DataError, match=rf"{path}: condition 'payload:9'.*; valid: payload:"):
        recorded(Residual(robot.vehicle, MLP(ROWS, 4, 1), N_Z), tmp_path, robot.name)
    robot.close()


def test_datasets_that_are_not_there_or_too_small(own, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere", own / "ant.safetensors"):
        error = refused(capsys, "train", "--data", folder, "--out", tmp_path / "out", *FIT)
        assert f"{folder} holds no dataset; valid:" in error
    data.shards(own / "data")[0].write_bytes(b"cut off")
    assert "not a readable shard" in refused(capsys, "train", "--data", own / "data", "--out", tmp_path / "out", *FIT)
    cli.main(["collect", "--out", str(tmp_path / "few"), "--robots", "7", "--steps", "5"])
    error = refused(capsys, "train", "--data", tmp_path / "few", "--out", tmp_path / "out", *FIT)
    assert "7 episode(s); valid: 8 or more" in error
    argv = ("train", "--data", own / "data", "--out", tmp_path / "out", *FIT)
    shutil.rmtree(own / "data")
    cli.main(["collect", "--out", str(own / "data"), "--robots", "8", "--steps", "5"])
    assert "no held-out episode is 41 transitions long" in refused(capsys, *argv, "--adapter", "online-sgd")
    assert "needs --init" in refused(capsys, *argv, "--adapter", "effectiveness")
