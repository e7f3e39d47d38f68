"""What the command line refuses, in one sentence that names the value and the valid ones: unknown words, numbers that cannot be,
what would be counted twice or not at all."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from refusals import FIT, LEARN, QUICK, refused, run_evaluate

from controller import cli, config
from robots.condition import parse

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


def test_cuda_where_there_is_none(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    error = refused(capsys, "train", "--data", made / "data", "--out", tmp_path / "out", *FIT, "--device", "cuda")
    assert "'cuda'" in error and "valid: cpu" in error


HUGE = str(2**63)
DEADLINES = tuple(("--controller.deadline-ms", value) for value in ("nan", "-5", "0", "inf"))
NUMBERS = {
    "evaluate": (("--seeds", "-1"), ("--steps", "0"), ("--controller.k", "0"), ("--controller.planner.samples", "4"),
                 ("--controller.planner.horizon", "0"), ("--controller.planner.iterations", "0"), ("--seeds", HUGE), ("--seed", HUGE),
                 ("--controller.planner.beta", "1.5"), ("--controller.planner.beta", "nan"), ("--controller.planner.std", "0"),
                 ("--controller.planner.std", "inf"), ("--controller.planner.elites", "0"), ("--controller.planner.elites", "1.5"),
                 ("--controller.planner.elites", "nan"), *DEADLINES),
    "demo": (("--seed", "-1"), ("--seeds", "0"), ("--steps", "0"), ("--seed", HUGE), *DEADLINES),
    "collect": (("--seed", "-1"), ("--robots", "0"), ("--steps", "0"), ("--batches", "0"), ("--seed", HUGE)),
    "train": (("--windows", "0"), ("--past", "0"), ("--future", "0"), ("--width", "0"), ("--ensemble", "0"), ("--seed", "-1"),
              ("--seed", HUGE), ("--train.steps", "0"), ("--train.save-every", "0"), ("--train.validate-every", "-1"),
              ("--train.patience", "0"), ("--train.lr", "nan"), ("--train.lr", "-0.001"), ("--train.clip", "0"),
              ("--train.decay-from", "1.5"), ("--train.decay-to", "-1")),
    "learn": (("--seed", "-1"), ("--robots", "7"), ("--steps", "0"), ("--controller.planner.samples", "3"), ("--seed", HUGE),
              ("--train.steps", "0"), *DEADLINES),
    "refine": DEADLINES,
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
    ):  # fmt: skip
        error = refused(capsys, *run_evaluate(w, out, *more))
        assert why in error and "; valid: " in error
    demo = ("demo", "--weights", w, "--controller.adapter", "frozen", "--out", out, "--steps", "4")
    assert "'leg:3@4' changes at step 4 of an episode of 4" in refused(capsys, *demo, "--condition", "leg:3@4")
    assert not out.exists()
    for steps, condition in ((500, "leg:3@167"), (150, "leg:3@50"), (4, "leg:3@3"), (1, "leg:3@0")):
        config.check_onsets(parse(condition), steps)


def test_a_change_after_the_end_is_said_and_not_measured(made, tmp_path, capsys):
    conditions = ("leg:3@1+healthy@4", "healthy@200", "leg:3@2", "healthy")
    cli.main(
        [str(a) for a in run_evaluate(made / "ant.safetensors", tmp_path, "--steps", "4", "--conditions", *conditions)]
    )
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if "changes at" in line] == [
        "condition 'leg:3@1+healthy@4' changes at step 4 of an episode of 4: what comes after is not measured",
        "condition 'healthy@200' changes at step 200 of an episode of 4: what comes after is not measured",
    ]
    rows = {row["condition"]: row for row in json.loads((tmp_path / "table.json").read_text())}
    assert tuple(rows) == conditions and {row["recover_s"] for row in rows.values()} == {None}
    for name in ("return", "error_before", "error_after"):  # it was healthy throughout
        assert rows["healthy@200"][name] == rows["healthy"][name]


def test_a_flights_change_after_the_end_is_said_and_not_measured(tmp_path, capsys):
    argv = [
        "evaluate",
        "quadrotor",
        "--adapters",
        "pid",
        "--conditions",
        "payload:0.2:0.5@400",
        "none",
        "--seeds",
        "1",
        "--steps",
        "40",
    ]
    cli.main([*argv, "--no-timing", "--out", str(tmp_path)])
    late = "condition 'payload:0.2:0.5@400' changes at step 400 of an episode of 40: what comes after is not measured\n"
    said = capsys.readouterr().out
    assert late in said and said.count("changes at") == 1
    attached, never = json.loads((tmp_path / "table.json").read_text())
    assert attached["settle_s"] is None and attached["rmse_m"] == never["rmse_m"]


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


@pytest.mark.parametrize("command, option", [
    ("train", "--train.seed"), ("learn", "--train.seed"), ("learn quadrotor", "--train.seed"), ("learn quadrotor", "--meta.seed"),
    ("refine", "--train.seed"), *((c, f"--train.{o}") for c in ("learn", "refine") for o in ("validate-every", "patience", "save-every")),
    ("learn quadrotor", "--train.validate-every"), ("learn quadrotor", "--train.patience"), ("evaluate", "--controller.adapter"),
])  # fmt: skip
def test_an_option_that_would_make_no_difference_is_none(command, option, made, tmp_path, capsys):
    needed = ("--data", str(made / "data")) if command == "train" else ()
    with pytest.raises(SystemExit) as exit_:
        cli.main(
            [*command.split(), *needed, option, "grbal" if "adapter" in option else "3", "--out", str(tmp_path / "out")]
        )
    assert exit_.value.code == 2 and option in capsys.readouterr().err and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    assert f"{option} " not in capsys.readouterr().out


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


@pytest.mark.parametrize("name", ["foo", "EGLL", "0x"])
def test_a_way_to_draw_that_there_is_not(name):
    result = subprocess.run(
        [sys.executable, "-m", "controller.cli", "evaluate", "--help"],
        capture_output=True, text=True, check=False, timeout=60, env=os.environ | {"MUJOCO_GL": name},
    )  # fmt: skip
    assert result.returncode == 2 and result.stdout == ""
    assert re.fullmatch(rf"sealegs: .*MUJOCO_GL={name} .*; valid: egl or osmesa .*\n", result.stderr)


def test_nobody_reads_what_is_printed():
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "controller.cli", "evaluate", "--help"],
        stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")
