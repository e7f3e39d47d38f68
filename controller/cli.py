"""The command `sealegs`. Everything is typed and documented from frozen dataclasses; a user's error is one sentence and exit code 2."""

import os
import sys

# One thread for each torch product: the loop spreads whole robots over threads instead. To be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import robots as _moving  # noqa: F401 (chooses how MuJoCo draws, where nobody did)

try:
    import mujoco  # noqa: F401 (looks for what it was told to draw with when it is imported, whatever is asked of it then)
except (RuntimeError, AttributeError, ImportError) as e:  # each OpenGL loader fails in its own way
    if "MUJOCO_GL" not in os.environ or isinstance(e, ModuleNotFoundError):
        raise
    print(
        f"sealegs: MuJoCo cannot be used with MUJOCO_GL={os.environ['MUJOCO_GL']} ({e}); valid: egl or osmesa where that library is, glfw with a "
        "screen, off, or unset",
        file=sys.stderr,
    )
    sys.exit(2)

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
import tyro

from controller import commands, commands_quadrotor
from controller.commands import Command
from controller.config import UsageError
from controller.ros import commands as ros_commands
from dynamics.checkpoint import CheckpointError
from dynamics.data import DataError
from dynamics.train import ResumeError
from robots.condition import ConditionError
from robots.trajectory import TrajectoryError
from robots.vehicle import VehicleError

USER_ERRORS = (
    UsageError, ConditionError, TrajectoryError, VehicleError, CheckpointError, DataError, ResumeError, FloatingPointError,
)  # fmt: skip
# By name, then by robot; the first robot is the default.
COMMANDS: dict[str, dict[str, Command]] = {}
for _table in (commands.COMMANDS, commands_quadrotor.COMMANDS, ros_commands.COMMANDS):
    for _name, _robots in _table.items():
        COMMANDS.setdefault(_name, {}).update(_robots)


def chosen(argv: Sequence[str]) -> dict[str, Command]:
    """Of every command the one for the robot that the command line names, right after the command, or else the first.

    Raises UsageError on an option that only another robot has.
    """
    found = {name: next(iter(robots.values())) for name, robots in COMMANDS.items()}
    name, *rest = argv or [""]
    robots = COMMANDS.get(name, {})
    named = rest and rest[0] in robots
    robot = rest[0] if named else next(iter(robots), "")
    if named:
        found[name] = robots[robot]
    own = set(_options(robots[robot][0])) if robots else set()
    for given in rest:
        option = given.partition("=")[0].replace("_", "-")
        others = [r for r, (kind, _) in robots.items() if option in _options(kind)]
        if option not in own and others:
            raise UsageError(
                f"{option} is an option of {' and '.join(others)}, not of {robot}; valid: `sealegs {name} {others[0]} {option} ...`, or "
                f"what `sealegs {name} {robot} --help` lists"
            )
    return found


def _options(kind: Any, prefix: str = "--") -> Iterator[str]:
    """As tyro names them."""
    for f in fields(kind):
        name = prefix + f.name.replace("_", "-")
        if tyro.conf.Suppress in getattr(f.type, "__metadata__", ()):
            continue
        if is_dataclass(f.type):
            yield from _options(f.type, f"{name}.")
        elif f.name != "robot":
            yield name
            if f.type is bool:
                yield f"{prefix}no-{f.name.replace('_', '-')}"


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 nobody reads what is printed, or the command's own (`replay`, `ros`), 2 the user's error, 130
    interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    config: Any = None
    try:
        known = chosen(argv)
        config = tyro.extras.subcommand_cli_from_dict(
            {name: kind for name, (kind, _) in known.items()},
            prog="sealegs",
            args=argv,
            description="The robot comes after the command: ant (where none is named) or quadrotor (demo, collect, evaluate, learn, targets, ros).",
        )
        torch.set_num_threads(1)
        run = next(f for kind, f in known.values() if type(config) is kind)
        if argv[0] in COMMANDS and len(robots := COMMANDS[argv[0]]) > 1 and robots[config.robot][0] is not type(config):
            raise UsageError(
                f"robot {config.robot!r} comes after options; valid: `sealegs {argv[0]} {config.robot} ...`, the robot first"
            )
        run(config)
    except USER_ERRORS as e:
        print(f"sealegs: {e}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read what is printed has gone (`| head`): no fault of a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter says so once more
        sys.exit(1)
    except OSError as e:
        # A full disk is told where something is closed, without a name.
        where = e.filename if e.filename is not None else getattr(config, "out", "a file")
        print(
            f"sealegs: {where} cannot be used ({e.strerror or e}); valid: a folder that can be written to, with room left",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
