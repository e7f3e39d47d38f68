"""Nothing that was written is lost: not to folders that cannot be, disks that give out, commands refused, or a later run."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from refusals import FIT, LEARN, digests, refused, run_evaluate
from safetensors import SafetensorError

from controller import cli, evaluate
from dynamics import data, tensors


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


@pytest.mark.parametrize("adapter", ["last-layer", "online-sgd"])
def test_an_earlier_training_is_set_aside_whole(adapter, made, tmp_path, capsys):
    out = tmp_path / "out"
    data_ = made / "data"
    argv = ["train", "--data", str(data_), "--out", str(out), "--adapter", adapter, *FIT]
    if adapter == "online-sgd":  # its rate is tuned on longer episodes
        cli.main(["collect", "--out", str(tmp_path / "long"), "--robots", "8", "--steps", "45"])
        argv[2] = str(tmp_path / "long")
    cli.main(argv)
    assert "moved" not in capsys.readouterr().out
    before = digests(out)
    assert {"config.json", "model.safetensors", "record.json", "state.safetensors"} < set(before)
    refused(capsys, *argv, "--train.lr", "0")
    refused(capsys, *argv, "--data", tmp_path / "none")
    assert digests(out) == before
    cli.main([*argv, "--resume"])
    assert "moved" not in capsys.readouterr().out and not (out / "earlier-1").exists()
    before = digests(out)
    cli.main([*argv, "--seed", "1"])
    said = capsys.readouterr().out
    assert said.count("moved") == 1 and f"the earlier training was moved to: {out / 'earlier-1'}\n" in said
    assert digests(out / "earlier-1") == before
    assert json.loads((out / "config.json").read_text())["seed"] == 1
    shutil.copytree(out / "earlier-1", tmp_path / "back")
    cli.main([*argv, "--out", str(tmp_path / "back"), "--resume"])  # and can be gone on with


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
