"""Getting up: a robot that lies where no plan rights it makes a motion that does.

A planner that looks 0.4 s ahead sees no way up from flat on the back, and training shows it next to nothing of lying robots: they are put back on
their feet. The motion is an open-loop gait, one sine a motor, which `sealegs right` finds on the simulator by the cross-entropy method
(Rubinstein and Kroese 2004). It acts once a robot has lain for `after` steps, and until it stands; meanwhile the planner goes on planning and the
adapter learning. Every `turn` steps the next of the robot's symmetries is applied to it, because the leg that one variant needs
most may be the one that is broken.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynamics.checkpoint import CheckpointError, git_revision
from robots.ant import Ant
from robots.condition import HEALTHY

LYING = 0.3  # cosine between the robot's axis and up below which it lies
RISEN = 0.6  # above this it stands again
SHAKEN, SETTLED = 16, 8  # steps of random actions and of none that a trial's robot lies before its gait begins


class Gait(NamedTuple):
    """One sine a motor."""

    frequency: Tensor  # () [Hz]
    amplitude: Tensor  # (a,) as a share of the largest action; what is beyond it is cut
    phase: Tensor  # (a,) in cycles
    offset: Tensor  # (a,)

    def action(self, t: Tensor) -> Tensor:
        """(*n,) [s] -> (*n, a) in [-1, 1]."""
        cycles = self.frequency * t[..., None] + self.phase
        return (self.offset + self.amplitude * torch.sin(2 * torch.pi * cycles)).clamp(-1, 1)


@dataclass(frozen=True)
class Righting:
    """variants (v, a, a): what the robot's symmetries make of an action, the identity first. upright: (b, s) -> (b,) cosine of the tilt. after and
    turn in steps of dt [s]."""

    gait: Gait
    variants: Tensor
    upright: Callable[[Tensor], Tensor]
    dt: float
    after: int = 20
    turn: int = 80

    def step(self, lain: Tensor, s: Tensor, gain: Tensor | None) -> tuple[Tensor, Tensor]:
        """lain (b,) int: steps each robot has lain; s (b, s); gain (b, a or more): what is known of the motors, None where nothing is. -> the new
        lain, and the motion's next actions (b, a), which are to be made where `rights(lain)`."""
        up = self.upright(s)
        lies = (up < LYING) | (self.rights(lain) & (up < RISEN))
        lain = torch.where(lies, lain + 1, 0)
        at = (lain - self.after - 1).clamp_min(0)
        variant = self.variants[at // self.turn % len(self.variants)]
        motion = torch.einsum("bij,bj->bi", variant, self.gait.action(at * self.dt))
        # A motor that turns the wrong way is told the opposite.
        return lain, motion if gain is None else motion * torch.where(gain[:, : motion.shape[1]] < 0, -1.0, 1.0)

    def rights(self, lain: Tensor) -> Tensor:
        """(b,) int -> (b,) bool."""
        return lain > self.after


@dataclass(frozen=True)
class SearchConfig:
    """The cross-entropy method over a gait's frequency, amplitudes, phases and offsets."""

    rounds: int = 25
    scouts: int = 384
    """candidates drawn anywhere before the first round; the best is where it begins, since phases of different gaits have no mean"""
    candidates: int = 48
    elites: int = 8
    starts: int = 8
    """different falls that each candidate is tried from, others in every round"""
    steps: int = 120
    """of a trial"""
    keep: float = 0.3
    """share of the mean and the deviation that a round keeps"""
    seed: int = 0


def search(robot: Ant, config: SearchConfig, say: Callable[[str], None]) -> tuple[np.ndarray, dict[str, Any]]:
    """-> the gait as a vector (1 + 3 a,): log of the frequency, amplitudes, phases, offsets; and a record.

    A trial is worth the steps until the robot stands, and, so that near misses count, how upright it has been at best.
    """
    rng = np.random.default_rng(config.seed)
    n = robot.space.n_action
    mean = np.concatenate(([np.log(1.5)], np.ones(n), np.full(n, 0.5), np.zeros(n)))
    std = np.concatenate(([0.5], np.full(3 * n, 0.4)))
    x = mean + std * rng.standard_normal((config.scouts, len(mean)))
    x[:, 1 + n : 1 + 2 * n] = rng.uniform(0, 1, (config.scouts, n))
    worth = np.concatenate([_worth(*_trials(robot, part, config, rng)) for part in np.array_split(x, -(-len(x) // 48))])
    mean, std = x[np.argmin(worth)], std / 2
    share = 0.0
    for r in range(config.rounds):
        x = mean + std * rng.standard_normal((config.candidates, len(mean)))
        steps, best = _trials(robot, x, config, rng)
        chosen = np.argsort(_worth(steps, best))[: config.elites]
        mean = config.keep * mean + (1 - config.keep) * x[chosen].mean(0)
        std = config.keep * std + (1 - config.keep) * x[chosen].std(0) + 0.02
        share = float((steps[chosen] < config.steps).mean())
        say(
            f"round {r + 1}  the {config.elites} best stand in {100 * share:.0f}%, all in {100 * (steps < config.steps).mean():.0f}% of trials"
        )
    transitions = (
        (config.scouts + config.rounds * config.candidates) * config.starts * (config.steps + SHAKEN + SETTLED)
    )
    return mean, {"config": asdict(config), "transitions": transitions, "elites_stand": share, "git": git_revision()}


def lie(robot: Ant, b: int, rng: np.random.Generator) -> np.ndarray:
    """Put b healthy robots on their backs, as they come to rest after some steps of random actions. -> states (b, s)."""
    s = robot.reset([HEALTHY] * b, rng.integers(2**31, size=b).tolist())
    heading = rng.uniform(0, 2 * np.pi, b)
    s[:, 2] = 0.6  # dropped from there
    s[:, 3:6] = np.stack((np.cos(heading), np.sin(heading), np.zeros(b)), 1)
    s[:, 6:9] = [0.0, 0.0, -1.0]
    v, w = robot.space.velocity
    s[:, v] = s[:, w] = 0.0
    robot.place(np.arange(b), s)
    robot.rollout(rng.uniform(-1, 1, (b, SHAKEN // 2, robot.space.n_action)).repeat(2, 1))
    return robot.rollout(np.zeros((b, SETTLED, robot.space.n_action)))[:, -1]


def _worth(steps: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Lower is better."""
    return steps.mean(1) - 20 * best.mean(1)


def _trials(robot: Ant, x: np.ndarray, config: SearchConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(c, 1 + 3 a) -> steps until it stands (c, starts), `steps` where it never does, and the most upright it was."""
    lie(robot, len(x) * config.starts, rng)
    t = torch.arange(config.steps) * robot.dt
    actions = torch.stack([gait(v).action(t) for v in x]).double().numpy()
    up = robot.upright(robot.rollout(actions.repeat(config.starts, 0)))
    stands = up > RISEN
    steps = np.where(stands.any(1), stands.argmax(1), config.steps)
    return steps.reshape(len(x), -1), up.max(1).reshape(len(x), -1)


def gait(x: np.ndarray) -> Gait:
    """(1 + 3 a,), see search."""
    v = torch.as_tensor(x, dtype=torch.float32)
    amplitude, phase, offset = v[1:].view(3, -1)
    return Gait(v[0].exp(), amplitude, phase, offset)


def save(path: Path, robot: str, g: Gait, record: dict[str, Any]) -> None:
    values = {name: np.round(np.asarray(value, np.float64), 4).tolist() for name, value in g._asdict().items()}
    path.write_text(json.dumps({"robot": robot, "gait": values, "record": record}, indent=1) + "\n")


def load(path: Path, robot: Ant) -> Righting:
    """Raises CheckpointError on anything but a righting motion for this robot."""
    try:
        content = json.loads(path.read_text())
        of, values = content["robot"], content["gait"]
        g = Gait(*(torch.tensor(values[name], dtype=torch.float32) for name in Gait._fields))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as e:
        raise CheckpointError(f"{path} is not a righting motion ({e}); valid: a file made by `sealegs right`") from e
    if of != robot.name:
        raise CheckpointError(f"{path} is for robot {of!r}, wanted {robot.name!r}")
    n = robot.space.n_action
    if [tuple(x.shape) for x in g] != [(), (n,), (n,), (n,)] or not all(bool(x.isfinite().all()) for x in g):
        raise CheckpointError(
            f"{path}: bad gait {values!r}; valid: a frequency, and {n} finite numbers for each of amplitude, phase, offset"
        )
    if not 0 < float(g.frequency) < 0.5 / robot.dt:
        raise CheckpointError(f"{path}: frequency {float(g.frequency):g} Hz; valid: above 0, below {0.5 / robot.dt:g}")
    variants = torch.stack([symmetry.action for symmetry in robot.symmetries()])
    return Righting(g, variants, robot.upright, robot.dt)
