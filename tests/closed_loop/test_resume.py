"""A run that is killed at any moment and started again ends at the same bits as one that was not, and loses nothing whole.

Processes are killed by SIGKILL, from within, so that the moment is exact: before some file gets its name, or in mid-training.
They are forked from a server that has imported everything once (torch._dynamo: the optimisers do)."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from controller import cli
from dynamics import data

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["controller.cli", "torch.utils.tensorboard", "torch._dynamo"])


def _run(argv: list[str], moment: str, count: int) -> None:
    """In a process of its own: the command, killed when it calls `moment` for the count-th time."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for the life of the process)
    calls = []

    def counted(real):
        def call(*args, **kwargs):
            calls.append(real)
            if len(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    # A file gets its name by a rename, or by a link where it must not replace another.
    for owner, name in {"rename": ((os, "replace"), (os, "link")), "step": ((torch.optim.Adam, "step"),)}[moment]:
        setattr(owner, name, counted(getattr(owner, name)))
    cli.main(argv)


def finishes(argv: list[str], moment: str = "rename", count: int = 0) -> bool:
    """-> whether it ended by itself; it must not fail otherwise."""
    process = SERVER.Process(target=_run, args=(argv, moment, count))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors")) for name, tensor in load_file(path).items()
    }  # fmt: skip


def assert_same(one: Path, other: Path) -> None:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys() and len(first) > 10
    assert all(torch.equal(x, second[name]) for name, x in first.items())


def test_a_killed_learn_ends_at_the_same_bits(tmp_path):
    def command(out: Path) -> list[str]:
        sizes = "--rounds 2 --robots 8 --steps 6 --width 8 --depth 1 --batch 16 --train.steps 6"
        planner = "--controller.planner.samples 20 --controller.planner.horizon 2 --controller.planner.iterations 1"
        return ["learn", "--out", str(out), *sizes.split(), *planner.split()]

    assert finishes(command(tmp_path / "whole"))
    cut = tmp_path / "cut"
    kills = [
        ("rename", 1),
        ("rename", 2),
        ("step", 4),
        ("rename", 2),
        ("rename", 3),
        ("rename", 3),
        ("step", 1),
        ("rename", 3),
    ]
    for moment, count in kills:
        assert not finishes(command(cut), moment, count), "it was over before it was killed for the last time"
        shards = data.shards(cut / "data")
        assert data.load(cut / "data", "ant", 31, 8).n > 0 if shards else not tensors(cut)
    assert finishes(command(cut))
    assert_same(tmp_path / "whole", cut)
    for shard in data.shards(cut / "data"):
        assert shard.read_bytes() == (tmp_path / "whole" / "data" / shard.name).read_bytes()
    before = {p: p.stat().st_mtime_ns for p in cut.rglob("*.safetensors")}
    assert finishes(command(cut))  # nothing is left to do
    assert before == {p: p.stat().st_mtime_ns for p in cut.rglob("*.safetensors")}


def test_a_killed_train_ends_at_the_same_bits(tmp_path):
    assert finishes(["collect", "--out", str(tmp_path / "data"), "--robots", "16", "--steps", "20"])

    def command(out: Path, adapter: str, *more: str) -> list[str]:
        sizes = "--width 8 --depth 1 --windows 8 --past 4 --future 2"
        steps = "--train.steps 40 --train.save-every 5 --train.validate-every 4"
        return [
            "train",
            "--data",
            str(tmp_path / "data"),
            "--out",
            str(out),
            "--adapter",
            adapter,
            *sizes.split(),
            *steps.split(),
            *more,
        ]

    for adapter in ("last-layer", "grbal", "frozen"):
        whole, cut = tmp_path / adapter / "whole", tmp_path / adapter / "cut"
        assert finishes(command(whole, adapter))
        assert not finishes(command(cut, adapter), "step", 2)  # before the first state on the way
        assert not finishes(command(cut, adapter, "--resume"), "step", 13)
        assert not finishes(command(cut, adapter, "--resume"), "step", 4)  # before it saved anything anew
        assert not finishes(
            command(cut, adapter, "--resume"), "rename", 4
        )  # a state was written, but not named; the first name is config.json's
        with safe_open(cut / "state.safetensors", "pt") as f:
            assert json.loads(f.metadata()["sealegs"])["step"] == 20
        assert not (cut / "model.safetensors").exists()
        assert finishes(command(cut, adapter, "--resume"))
        assert_same(whole, cut)
        ours, theirs = (json.loads((folder / "record.json").read_text()) for folder in (whole, cut))
        assert {n: v for n, v in ours.items() if n not in ("config", "git")} == {
            n: theirs[n] for n in ours if n not in ("config", "git")
        }


def test_a_killed_collect_leaves_only_whole_shards(tmp_path):
    # Here the kill comes from outside, at a moment of its own.
    process = subprocess.Popen(
        [sys.executable, "-m", "controller.cli", "collect", "--out", str(tmp_path), "--robots", "2", "--steps", "5",
         "--batches", "100000"], stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(data.shards(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    shards = data.shards(tmp_path)
    rows = data.load(tmp_path, "ant", 31, 8)
    assert len(shards) >= 3 and rows.n == 2 * 5 * len(shards)
    # One that was written and not yet named counts for nothing, and is no hindrance. The first name is config.json's.
    assert not finishes(["collect", "--out", str(tmp_path), "--robots", "2", "--steps", "5"], "rename", 2)
    assert list(tmp_path.glob("shard*.partial")) and data.shards(tmp_path) == shards
    assert finishes(["collect", "--out", str(tmp_path), "--robots", "2", "--steps", "5"])
    assert data.load(tmp_path, "ant", 31, 8).n == rows.n + 10 and not list(tmp_path.glob("shard*.partial"))


def test_collecting_again_gathers_what_one_longer_run_would_have(tmp_path):
    args = ["--robots", "2", "--steps", "5"]
    for _ in range(2):
        assert finishes(["collect", "--out", str(tmp_path / "twice"), *args])
    assert finishes(["collect", "--out", str(tmp_path / "once"), *args, "--batches", "2"])
    twice, once = (data.load(tmp_path / name, "ant", 31, 8) for name in ("twice", "once"))
    assert torch.equal(twice.s, once.s)
    assert torch.equal(twice.a, once.a)
    assert not torch.equal(once.a[:10], once.a[10:])


def test_neighbouring_seeds_share_no_data(tmp_path):
    batches = {}
    for seed in ("0", "1"):
        args = ["--robots", "2", "--steps", "3", "--batches", "3", "--seed", seed]
        assert finishes(["collect", "--out", str(tmp_path / seed), *args])
        for path in data.shards(tmp_path / seed):
            batches[seed, path.name] = load_file(path)["a"]
    assert len(batches) == 6 and len({x.numpy().tobytes() for x in batches.values()}) == 6


def test_two_that_collect_into_one_folder_lose_nothing(tmp_path):
    processes = [
        SERVER.Process(
            target=_run,
            args=(["collect", "--out", str(tmp_path), "--robots", "2", "--steps", "2", "--batches", "15", "--seed", seed], "step", 0),
        )
        for seed in ("0", "1")
    ]  # fmt: skip
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    shards = data.shards(tmp_path)
    assert [p.name for p in shards] == [f"shard-{i:05d}.safetensors" for i in range(30)]
    assert len({load_file(p)["a"].numpy().tobytes() for p in shards}) == 30
