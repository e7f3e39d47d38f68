"""A user's error is one sentence on stderr that names the value and the valid ones, exit code 2, and nothing lost."""

import errno
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from controller import cli, config, evaluate, fitting
from dynamics import checkpoint, data, tensors
from dynamics import train as training
from dynamics.mlp import MLP
from dynamics.types import Theta
from robots.ant import Ant
from robots.condition import parse

QUICK = ("--controller.planner.samples", "20", "--controller.planner.horizon", "2")
FIT = (
    "--width",
    "8",
    "--depth",
    "1",
    "--windows",
    "4",
    "--past",
    "3",
    "--future",
    "2",
    "--train.steps",
    "4",
    "--train.save-every",
    "2",
)
LEARN = ("--rounds", "0", "--robots", "8", "--width", "8", "--depth", "1", "--train.steps", "2", "--batch", "8")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a checkpoint of random weights for the frozen ant, and a small dataset. Not to be written to."""
    folder = tmp_path_factory.mktemp("made")
    model = MLP(Ant.space, 8, 1)
    norm = {
        "x_mean": torch.zeros(26),
        "x_std": torch.ones(26),
        "d_mean": torch.zeros(28),
        "d_std": torch.full((28,), 0.1),
    }
    theta = Theta(model.init(torch.Generator().manual_seed(0)), norm, {})
    checkpoint.save(folder / "ant.safetensors", "ant", model, theta, {})
    checkpoint.save(folder / "cheetah.safetensors", "cheetah", model, theta, {})
    cli.main(["collect", "--out", str(folder / "data"), "--robots", "8", "--steps", "10"])
    return folder


@pytest.fixture
def own(made, tmp_path) -> Path:
    """The same, to be spoilt."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def refused(capsys, *argv: object) -> str:
    """Run the command, which must be refused properly. -> the sentence."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(a) for a in argv])
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error.startswith("sealegs: ") and error.endswith("\n") and error.count("\n") == 1, error
    assert "Traceback" not in error
    return error


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def run_evaluate(weights: Path, out: Path, *more: object) -> tuple:
    argv = ("evaluate", "--weights", weights, "--out", out, "--adapters", "frozen", "--seeds", "1", "--steps", "2")
    return (*argv, *QUICK, *more)


CONDITIONS = {
    "leg:9": r"'leg:9'.*'9'.*leg:LEG \(0-3",
    "limp": r"'limp'.*healthy, leg:LEG",
    "leg:3@x": r"'leg:3@x'",
    "weak:2": r"'weak:2'.*outside 0 to 1",
    "leg:3+weak:nan": r"'weak:nan'",
    "": r"''",
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_unknown_condition(condition, made, tmp_path, capsys):
    w, out = made / "ant.safetensors", tmp_path / "out"
    commands = [
        run_evaluate(w, out, "--conditions", "healthy", condition),
        ("collect", "--out", out, "--conditions", condition),
        ("learn", "--out", out, *LEARN, "--conditions", "healthy", condition),
    ]
    if condition:
        commands.append(("demo", "--weights", w, "--out", out, "--condition", condition))
    for argv in commands:
        error = refused(capsys, *argv)
        assert re.search(CONDITIONS[condition], error) and "; valid: " in error
        assert not out.exists()  # nothing had begun


def test_an_unknown_adapter(made, tmp_path, capsys):
    error = refused(capsys, *run_evaluate(made / "ant.safetensors", tmp_path / "out", "--adapters", "frozen", "magic"))
    assert "'magic'" in error and "frozen, online-sgd, grbal, last-layer, effectiveness" in error
    assert not (tmp_path / "out").exists()


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


def respoil(folder: Path, **changes) -> None:
    path = data.shards(folder)[0]
    tensors = load_file(path)
    meta = changes.pop("meta", {"robot": "ant"})
    save_file(tensors | {n: f(tensors[n].clone()) for n, f in changes.items()}, path, {"sealegs": json.dumps(meta)})


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


def test_cuda_where_there_is_none(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    error = refused(capsys, "train", "--data", made / "data", "--out", tmp_path / "out", *FIT, "--device", "cuda")
    assert "'cuda'" in error and "valid: cpu" in error


def test_a_training_that_diverges(made, tmp_path, capsys):
    argv = ("train", "--data", made / "data", "--out", tmp_path / "out", *FIT, "--train.lr", "1e30")
    assert "lower --train.lr" in refused(capsys, *argv)


def test_going_on_with_other_settings(own, tmp_path, capsys):
    made = own
    out = tmp_path / "fit"
    argv = ("train", "--data", made / "data", "--out", out, "--adapter", "last-layer", *FIT)
    assert "nothing to resume" in refused(capsys, *argv, "--resume")
    cli.main([str(a) for a in argv])
    before = digests(out)
    for changed, name in (
        (("--train.lr", "0.5"), r"train\.lr 0\.0003, not 0\.5"),
        (("--train.steps", "6"), r"train\.steps 4, not 6"),
        (("--adapter", "grbal"), "adapter 'last-layer', not 'grbal'"),
        (("--past", "5"), "past 3, not 5"),
        (("--seed", "1"), "seed 0, not 1"),
        (("--init", made / "ant.safetensors"), "init None, not '.*ant.safetensors'"),
    ):
        assert re.search(name + "; valid: the settings it began with", refused(capsys, *argv, *changed, "--resume"))
    assert digests(out) == before
    shard = data.shards(made / "data")[0]
    whole = shard.read_bytes()
    respoil(made / "data", a=lambda a: -a)
    assert re.search("data_sha256 '[0-9a-f]{64}', not '[0-9a-f]{64}'; valid", refused(capsys, *argv, "--resume"))
    shard.write_bytes(whole)
    cli.main(["collect", "--out", str(made / "data"), "--robots", "1", "--steps", "2"])
    assert "data_sha256" in refused(capsys, *argv, "--resume")
    data.shards(made / "data")[1].unlink()
    assert digests(out) == before
    cli.main([*(str(a) for a in argv), "--resume"])  # it can still go on
    (out / "state.safetensors").write_bytes(b"cut off")
    assert "nothing to resume" in refused(capsys, *argv, "--resume")


def test_a_record_without_a_validation_on_the_way(made, tmp_path):
    out = tmp_path / "fit"
    cli.main([str(a) for a in ("train", "--data", made / "data", "--out", out, *FIT, "--train.validate-every", "0")])
    texts = [(out / "record.json").read_text()]
    with safe_open(out / "model.safetensors", "pt") as f:
        texts.append(json.dumps(json.loads(f.metadata()["sealegs"])["record"]))
    for text in texts:
        assert "Infinity" not in text and "NaN" not in text
        record = json.loads(text)
        assert 0 < record["validation"] < 1e3 and record["data_sha256"] == data.digest(made / "data")


def test_a_state_goes_beside_its_data_and_adams_count_stays():
    w = {"w": torch.ones(2)}
    state = training.State(w, {"count": torch.ones(()), "first.w": torch.ones(2)}, w, 3, 1.0, 0)
    moved = fitting.on_device(state, "meta")  # a device that every machine has
    assert [x.device.type for x in (moved.params["w"], moved.best["w"], moved.adam["first.w"])] == ["meta"] * 3
    assert moved.adam["count"].device.type == "cpu" and moved.step == 3


def test_learning_on_with_other_settings(tmp_path, capsys):
    out = tmp_path / "learn"
    argv = ("learn", "--out", out, *LEARN)
    cli.main([str(a) for a in argv])
    before = digests(out)
    for changed, name in (
        (("--rounds", "2"), "rounds 0, not 2"),
        (("--conditions", "healthy"), r"conditions \['healthy', .*\], not \['healthy'\]"),
        (("--controller.planner.std", "0.5"), r"controller\.planner\.std 0\.6, not 0\.5"),
    ):
        assert re.search(name, refused(capsys, *argv, *changed))
    assert digests(out) == before


HUGE = str(2**63)
NUMBERS = {
    "evaluate": (("--seeds", "-1"), ("--steps", "0"), ("--controller.k", "0"), ("--controller.planner.samples", "4"),
                 ("--controller.planner.horizon", "0"), ("--controller.planner.iterations", "0"), ("--seeds", HUGE), ("--seed", HUGE),
                 ("--controller.planner.beta", "1.5"), ("--controller.planner.beta", "nan"), ("--controller.planner.std", "0"),
                 ("--controller.planner.std", "inf"), ("--controller.planner.elites", "0"), ("--controller.planner.elites", "1.5"),
                 ("--controller.planner.elites", "nan")),
    "demo": (("--seed", "-1"), ("--seeds", "0"), ("--steps", "0"), ("--seed", HUGE)),
    "collect": (("--seed", "-1"), ("--robots", "0"), ("--steps", "0"), ("--batches", "0"), ("--seed", HUGE)),
    "train": (("--windows", "0"), ("--past", "0"), ("--future", "0"), ("--width", "0"), ("--ensemble", "0"), ("--seed", "-1"),
              ("--seed", HUGE), ("--train.steps", "0"), ("--train.save-every", "0"), ("--train.validate-every", "-1"),
              ("--train.patience", "0"), ("--train.lr", "nan"), ("--train.lr", "-0.001"), ("--train.clip", "0"),
              ("--train.decay-from", "1.5"), ("--train.decay-to", "-1")),
    "learn": (("--seed", "-1"), ("--robots", "7"), ("--steps", "0"), ("--controller.planner.samples", "3"), ("--seed", HUGE),
              ("--train.steps", "0")),
    "learn quadrotor": (("--seed", HUGE), ("--train.lr", "0"), ("--meta.steps", "0"), ("--windows", "0"), ("--past", "0"), ("--future", "-1")),
    "bench": (("--seed", "-1"), ("--seed", HUGE)),
}  # fmt: skip


@pytest.mark.parametrize("command", NUMBERS)
def test_a_number_that_cannot_be(command, made, tmp_path, capsys):
    out = tmp_path / "out"
    argv = {
        "evaluate": run_evaluate(made / "ant.safetensors", out),
        "demo": ("demo", "--weights", made / "ant.safetensors", "--controller.adapter", "frozen", "--out", out),
        "train": ("train", "--data", made / "data", "--out", out),
    }.get(command, (*command.split(), "--out", out))
    for flag, value in NUMBERS[command]:
        error = refused(capsys, *argv, flag, value)
        assert flag.split(".")[-1].strip("-").rstrip("s") in error and (value in error or "at least" in error), error
        assert not out.exists()


def test_what_would_be_counted_twice_or_not_at_all(made, tmp_path, capsys):
    w, out = made / "ant.safetensors", tmp_path / "out"
    for more, why in (
        (("--seeds", "3", "5", "3"), "--seeds has 3 twice"),
        (("--conditions", "leg:3", "healthy", "leg:3"), "--conditions has 'leg:3' twice"),
        (("--adapters", "frozen", "frozen"), "--adapters has 'frozen' twice"),
        (("--seeds",), "--seeds is empty"),
        (("--conditions",), "--conditions is empty"),
        (("--adapters",), "--adapters is empty"),
        (("--conditions", "leg:3@100", "--steps", "4"), "'leg:3@100' changes at step 100 of an episode of 4"),
        (("--conditions", "leg:3@1+healthy@4", "--steps", "4"), "'leg:3@1+healthy@4' changes at step 4 of an episode of 4"),
    ):  # fmt: skip
        error = refused(capsys, *run_evaluate(w, out, *more))
        assert why in error and "; valid: " in error
    demo = ("demo", "--weights", w, "--controller.adapter", "frozen", "--out", out, "--steps", "4")
    assert "'leg:3@4' changes at step 4 of an episode of 4" in refused(capsys, *demo, "--condition", "leg:3@4")
    assert not out.exists()
    for steps, condition in ((500, "leg:3@167"), (150, "leg:3@50"), (4, "leg:3@3"), (1, "leg:3@0")):
        config.check_onsets([parse(condition)], steps)


def test_what_adapter_effectiveness_makes_nothing_of(made, tmp_path, capsys):
    argv = ("train", "--data", made / "data", "--init", made / "ant.safetensors", "--out", tmp_path / "out")
    for flag, value in (("--past", "5"), ("--train.lr", "0.1"), ("--train.steps", "5"), ("--windows", "2")):
        error = refused(capsys, *argv, "--adapter", "effectiveness", flag, value)
        assert f"{flag} is {value}" in error and "'effectiveness' makes nothing" in error
    assert "needs --init" in refused(capsys, *argv, "--adapter", "effectiveness")  # this checkpoint has no deviation
    assert not (tmp_path / "out").exists()


def test_a_demonstration_shorter_than_the_mean_it_draws(made, tmp_path):
    argv = (
        "demo",
        "--weights",
        made / "ant.safetensors",
        "--controller.adapter",
        "frozen",
        "--no-video",
        "--seeds",
        "1",
        *QUICK,
    )
    for steps in ("1", "9"):
        cli.main([*(str(a) for a in argv), "--steps", steps, "--out", str(tmp_path / steps)])
        assert (tmp_path / steps / "demo.png").stat().st_size > 10_000


def test_a_newest_shard_that_is_held_out_whole(tmp_path):
    for robots in ("7", "1"):
        cli.main(["collect", "--out", str(tmp_path / "data"), "--robots", robots, "--steps", "10"])
    cli.main([str(a) for a in ("train", "--data", tmp_path / "data", "--out", tmp_path / "out", *FIT)])
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_where_no_folder_can_be_made(made, capsys):
    for argv in (
        run_evaluate(made / "ant.safetensors", "/proc/x"),
        ("collect", "--out", "/proc/x", "--robots", "1", "--steps", "1"),
        ("bench", "--out", "/proc/x"),
    ):
        assert "/proc/x cannot be used (No such file or directory); valid: a folder" in refused(capsys, *argv)


def test_a_file_system_that_gives_out(own, tmp_path, capsys, monkeypatch):
    def read_only(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    def full(_, path, __):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    before = digests(own / "data")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", read_only)
        for argv in (run_evaluate(own / "ant.safetensors", tmp_path / "x"), ("bench", "--out", tmp_path / "x")):
            assert f"{tmp_path / 'x'} cannot be used (Read-only file system)" in refused(capsys, *argv)
    monkeypatch.setattr(tensors, "save_file", full)
    error = refused(capsys, "collect", "--out", own / "data", "--robots", "1", "--steps", "1")
    assert f"{own / 'data'}" in error and "(No space left on device)" in error
    after = digests(own / "data")
    assert {n: x for n, x in before.items() if n != "config.json"} == {
        n: x for n, x in after.items() if n != "config.json"
    }
    error = refused(capsys, "train", "--data", own / "data", "--out", tmp_path / "fit", *FIT)
    assert f"{tmp_path / 'fit' / 'state.partial'} cannot be used (No space left on device)" in error


def test_collecting_again_adds_to_the_summary(own, capsys):
    more = ("collect", "--out", own / "data", "--robots", "1", "--steps", "2")
    cli.main([str(a) for a in (*more, "--batches", "2")])
    listed = json.loads((own / "data" / "summary.json").read_text())
    assert [x["shard"] for x in listed] == [p.name for p in data.shards(own / "data")] and len(listed) == 3
    (own / "data" / "summary.json").write_text("mine")
    before = digests(own / "data")
    assert "summary.json is not a list of batches" in refused(capsys, *more)
    assert digests(own / "data") == before


def test_an_output_folder_that_cannot_be(made, capsys):
    file = made / "ant.safetensors"
    before = digests(made)
    for argv in (run_evaluate(file, file), ("collect", "--out", file / "below"), ("learn", *LEARN, "--out", file)):
        assert f"{file}" in refused(capsys, *argv)
    assert digests(made) == before


def test_nothing_gathered_is_lost(own, tmp_path, capsys):
    before = digests(own / "data")
    refused(capsys, "collect", "--out", own / "data", "--conditions", "limp")
    refused(capsys, "collect", "--out", own / "data", "--policy", "planner", "--weights", own / "cheetah.safetensors")
    assert digests(own / "data") == before
    cli.main(["collect", "--out", str(own / "data"), "--robots", "2", "--steps", "3", "--seed", "1"])
    after = digests(own / "data")
    assert after["shard-00000.safetensors"] == before["shard-00000.safetensors"]  # added to, not written over
    assert len(data.shards(own / "data")) == 2
    out = tmp_path / "table"
    cli.main([str(a) for a in run_evaluate(own / "ant.safetensors", out)])
    before = digests(out)
    refused(capsys, *run_evaluate(own / "ant.safetensors", out, "--adapters", "frozen", "magic"))
    refused(capsys, *run_evaluate(own / "cheetah.safetensors", out))
    for weights, beta in ((own / "cheetah.safetensors", "0.7"), (own / "ant.safetensors", "1.5")):
        refused(capsys, *run_evaluate(weights, out, "--adapters", "oracle", "--controller.planner.beta", beta))
    assert digests(out) == before


def test_an_earlier_table_is_set_aside_whole(made, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    argv = [str(a) for a in run_evaluate(made / "ant.safetensors", out, "--conditions", "healthy")]
    cli.main(argv)
    before = digests(out)
    assert {"config.json", "table.csv", "table.json", "table.md", "table.png"} == set(before)

    def interrupted(*args, **kwargs):
        assert [p.name for p in out.iterdir() if p.is_file()] == ["config.json"]  # of this run
        raise KeyboardInterrupt

    real = evaluate.episodes
    monkeypatch.setattr(evaluate, "episodes", interrupted)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main([*argv, "--seed", "1"])
    assert f"the earlier table was moved to: {out / 'earlier-1'}\n" in capsys.readouterr().out
    assert digests(out / "earlier-1") == before
    assert json.loads((out / "config.json").read_text())["seed"] == 1
    monkeypatch.setattr(evaluate, "episodes", real)
    cli.main(argv)
    assert not (out / "earlier-2").exists()  # the interrupted run had no table
    assert "moved" not in capsys.readouterr().out


@pytest.mark.parametrize("fault", [KeyboardInterrupt, MemoryError])
def test_the_table_of_finished_controllers_outlives_a_fault_in_the_next(fault, made, tmp_path, monkeypatch):
    real, calls = evaluate.episodes, []

    def episodes(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise fault
        return real(*args, **kwargs)

    monkeypatch.setattr(evaluate, "episodes", episodes)
    shutil.copy(made / "ant.safetensors", tmp_path / "leg_3.safetensors")
    argv = run_evaluate(made / "ant.safetensors", tmp_path / "out", "--conditions", "leg:3", "--specialists", tmp_path)
    with pytest.raises(SystemExit if fault is KeyboardInterrupt else fault) as e:
        cli.main([*(str(a) for a in argv), "--adapters", "frozen", "specialist"])
    assert fault is not KeyboardInterrupt or e.value.code == 130
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [(row["adapter"], row["condition"], row["seed"], row["steps"]) for row in table] == [
        ("frozen", "leg:3", 1, 2)
    ]


@pytest.mark.parametrize(
    "argv",
    [
        ["walk"], ["evaluate", "whale"], ["evaluate", "--adapter"], ["train"], ["collect", "--steps", "many"],
        ["collect", "--policy", "magic"], ["train", "--data", "d", "--adapter", "magic"], ["train", "--data", "d", "--device", "tpu"],
        ["demo", "--controller.precision", "float16"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_the_command_line_itself_refuses(argv, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and "Traceback" not in error
    assert argv[-1].lstrip("-") in error or "--data" in error


def test_help_and_no_command_explain_themselves(capsys):
    for argv, code in ((["--help"], 0), (["learn", "--help"], 0), ([], 2)):
        with pytest.raises(SystemExit) as exit_:
            cli.main(argv)
        said = capsys.readouterr()
        assert exit_.value.code == code and "learn" in said.out + said.err


def test_the_installed_command(own):
    result = subprocess.run(
        [sys.executable, "-m", "controller.cli", "evaluate", "--weights", own / "cheetah.safetensors", "--out", own / "out"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2 and result.stdout.strip() == ""
    said = r"sealegs: .*cheetah\.safetensors is for robot 'cheetah', wanted 'ant'; valid: one made by `sealegs learn ant`\n"
    assert re.fullmatch(said, result.stderr)


def test_nobody_reads_what_is_printed():
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "controller.cli", "evaluate", "--help"],
        stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")
