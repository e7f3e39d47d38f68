"""A user's error is one sentence on stderr that names the value and the valid ones, and exit code 2: commands at small sizes, refused."""

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from controller import cli
from dynamics import data

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


def respoil(folder: Path, **changes) -> None:
    path = data.shards(folder)[0]
    tensors = load_file(path)
    meta = changes.pop("meta", {"robot": "ant"})
    save_file(tensors | {n: f(tensors[n].clone()) for n, f in changes.items()}, path, {"sealegs": json.dumps(meta)})
