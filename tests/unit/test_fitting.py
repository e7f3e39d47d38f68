"""Fitting by command: it goes on with the settings it began with and no others, and says what it reached, or that it diverged."""

import json
import re
from pathlib import Path

import pytest
import torch
from refusals import FIT, LEARN, digests, refused, respoil
from safetensors import safe_open

from controller import cli, fitting
from dynamics import data
from dynamics import train as training


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


@pytest.mark.parametrize("content", [b'{"adapter": "last-', b"", b"[1, 2]", b"null", b"\xff\xfe\x00"])
def test_settings_that_are_damaged(content, made, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    for argv, name in (
        (("train", "--data", made / "data", *FIT, "--resume"), "config.json"),
        (("learn", *LEARN), "learn.json"),
        (("learn", "quadrotor"), "learn.json"),
        (("refine", "--init", made / "ant.safetensors", "--controller.adapter", "frozen"), "refine.json"),
    ):
        (out / name).write_bytes(content)
        error = refused(capsys, *argv, "--out", out)
        assert str(out / name) in error and "another --out" in error
        assert (out / name).read_bytes() == content and sorted(out.iterdir()) == [out / name]
        (out / name).unlink()


def test_no_one_sees_half_of_a_trainings_settings(made, tmp_path, monkeypatch):
    argv = [str(a) for a in ("train", "--data", made / "data", "--out", tmp_path / "out", *FIT)]
    cli.main(argv)
    before = (tmp_path / "out" / "config.json").read_bytes()
    write = Path.write_text

    def cut_off(self, text, *args, **kwargs):
        write(self, text[: len(text) // 2], *args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", cut_off)
    with pytest.raises(SystemExit):
        cli.main([*argv, "--resume"])
    assert (tmp_path / "out" / "config.json").read_bytes() == before


def test_a_newest_shard_that_is_held_out_whole(tmp_path):
    for robots in ("7", "1"):
        cli.main(["collect", "--out", str(tmp_path / "data"), "--robots", robots, "--steps", "10"])
    cli.main([str(a) for a in ("train", "--data", tmp_path / "data", "--out", tmp_path / "out", *FIT)])
    assert (tmp_path / "out" / "model.safetensors").exists()
