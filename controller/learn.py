"""From nothing to a model: rounds of acting and training.

    round 0   open-loop exploration
    round r   explain every episode's motor gains (E), fit the network to the actions as they acted (M), act with the result

Everything a round needs is on disk when it begins: the dataset's shards and the training state of the round before. A run that is killed
and started again repeats at most the half round it was in, to the same bits.
"""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from controller.collect import explore, on_policy, steady
from controller.config import (
    ControllerConfig,
    PlannerConfig,
    RoundTraining,
    assemble,
    at_least,
    check_deadline,
    check_seeds,
    check_share,
    check_training,
    make_planner,
)
from dynamics import checkpoint, data, objectives, risk, value
from dynamics import train as training
from dynamics.adapt.effectiveness import Effectiveness, episode_gains
from dynamics.checkpoint import Checkpoint
from dynamics.mlp import MLP, mul
from dynamics.risk import RiskConfig
from dynamics.tensors import write
from dynamics.types import Params, Theta
from dynamics.value import ValueConfig
from robots.ant import UPRIGHT, Ant

# The search behind the recordings of the shipped weights. The quicker one that is the default elsewhere was found on the finished model, and no
# model has been learned with it yet. One thing is otherwise than it was then: from round `risk_from` on a robot that tipped over in a plan pays the
# whole price of a fall (`running_cost`), where it paid what the chance happened to say of it.
GATHERING = PlannerConfig(std=0.6, beta=0.7, elites=1 / 6, weighting="even")


@dataclass(frozen=True)
class LearnConfig:
    conditions: tuple[str, ...] = ("healthy",) * 6 + ("leg:0", "leg:1", "leg:2")
    """dealt to the robots in turn"""
    later: tuple[str, ...] = ()
    """dealt to them from round `later_from` on; none: the same"""
    later_from: int = 50
    rounds: int = 50
    robots: int = 72
    steps: int = 67
    """of each robot in a round"""
    carry: int = 8
    """rounds a robot runs on for before it starts from rest again, unless it has fallen"""
    kick: tuple[float, float] = (0.4, 1.5)
    """standard deviations of a disturbance at the beginning of a round, of the linear [m/s] and the angular velocity [rad/s]"""
    undisturbed: bool = False
    """from round `risk_from` on only every other robot is disturbed: the others show how it falls of its own accord"""
    value_from: int = 10
    """round from which a value is learned, plans are short, and robots begin disturbed; a value of earlier recordings, mostly of falls, held
    learning up (docs/trials/ant.md)"""
    early: PlannerConfig = field(default_factory=lambda: replace(GATHERING, horizon=16, iterations=3))
    """plans of the rounds before"""
    risk_from: int = 20
    """round from which the chance of a fall is learned and plans pay for it"""
    before: int = 20
    """steps before a fall of the healthy robot that have weight from round `risk_from` on; damaged robots fall for other reasons, and often"""
    share: float = 0.0
    """of a batch that is drawn from these: a robot falls where a leg strikes that the model did not expect there, and that is 1% of a recording"""
    whole: bool = False
    """in the last round fit the value to recordings of the healthy robot alone, and the chance of a fall to all but those of short legs"""
    members: int = 1
    """fits of value and chance whose mean the last round's are"""
    gains: bool = True
    """explain recordings by motor gains; without, a damage that is always there is learned as the robot itself (a specialist)"""
    symmetry: bool = True
    """see recordings of the healthy robot under all of its symmetries, and those of short legs, which are told; recordings of other damage never:
    an unseen leg without torque stays unseen"""
    width: int = 256
    depth: int = 3
    ensemble: int = 1
    batch: int = 512
    train: RoundTraining = RoundTraining(steps=2500)
    value: ValueConfig = ValueConfig()
    risk: RiskConfig = RiskConfig()
    controller: ControllerConfig = ControllerConfig(adapter="effectiveness", planner=GATHERING, fall_price=30.0)
    """its adapter is one whose meta parameters a round can measure: a round trains no other"""
    seed: int = 0


Say = Callable[[str], None]


def learn(robot: Ant, config: LearnConfig, out: Path, say: Say) -> Path:
    """Run, or go on with, the rounds in `out`. -> the checkpoint of the last round. Raises UsageError, ConditionError,
    ResumeError before anything is written."""
    at_least(8, robots=config.robots)  # one in eight episodes is held out
    at_least(
        1, steps=config.steps, batch=config.batch, width=config.width, depth=config.depth, ensemble=config.ensemble
    )
    at_least(1, carry=config.carry, before=config.before, members=config.members)
    check_share(config.share)
    check_seeds(config.seed)
    check_training("train", config.train)
    check_deadline(config.controller)
    at_least(
        0, rounds=config.rounds, value_from=config.value_from, risk_from=config.risk_from, later_from=config.later_from
    )
    for condition in config.conditions + config.later:
        steady(condition)
    for planner in (config.controller.planner, config.early):
        make_planner(planner, robot.space.n_action)
    folder = out / "data"
    model = MLP(robot.space, config.width, config.depth, config.ensemble, robot.n_body)
    settings = json.dumps(asdict(config), sort_keys=True)
    stamp = out / "learn.json"
    if stamp.exists():
        training.refuse_other(out, training.begun(stamp), json.loads(settings))
    else:
        out.mkdir(parents=True, exist_ok=True)
        stamp.with_suffix(".partial").write_text(settings)
        stamp.with_suffix(".partial").replace(stamp)
    if not data.shards(folder):
        say(f"round 0  {json.dumps(explore(robot, folder, _dealt(config, 0), config.steps, config.seed * 1000))}")
    for r in range(config.rounds + 1):
        if len(data.shards(folder)) > r + 1:
            continue
        begun = time.perf_counter()
        done = out / f"round-{r:03d}.safetensors"
        if not (out / f"train-{r:03d}.safetensors").exists():
            _fit(robot, model, folder, out, config, r)
        loaded = checkpoint.load(done, robot.name, robot.space)
        fitted = time.perf_counter()
        if r == config.rounds:
            break
        controller = assemble(robot, _acting(config, r), loaded)
        summary = on_policy(
            robot,
            controller,
            folder,
            _dealt(config, r),
            config.steps,
            config.seed * 1000 + r + 1,
            start=carried(robot, folder, config),
        )
        total = (r + 2) * config.steps * config.robots
        line = {**summary, "round": r + 1, "transitions": total, "loss": loaded.record["loss"]}
        line |= {"train_s": round(fitted - begun, 1), "collect_s": round(time.perf_counter() - fitted, 1)}
        with open(out / "rounds.jsonl", "a") as f:
            f.write(json.dumps(line) + "\n")
        say(f"round {r + 1}  {json.dumps(line)}")
    return out / f"round-{config.rounds:03d}.safetensors"


def _dealt(config: LearnConfig, r: int) -> list[str]:
    """Of each robot in the recording that round r makes."""
    conditions = config.later if config.later and r >= config.later_from else config.conditions
    return [conditions[i % len(conditions)] for i in range(config.robots)]


def _acting(config: LearnConfig, r: int) -> ControllerConfig:
    return config.controller if r >= config.value_from else replace(config.controller, planner=config.early)


def carried(robot: Ant, folder: Path, config: LearnConfig) -> np.ndarray:
    """Where the robots of the newest shard go on from (b, s), disturbed; NaN for those that lie, and for one in `carry` of them, which start
    from rest. A round is shorter than a scored episode: without this the model would never see what comes after its first seconds."""
    path, count = data.shards(folder)[-1], len(data.shards(folder))
    states = (
        data.read_shard(path, robot.name, robot.space.n_state, robot.space.n_action)[0]["s_next"][:, -1]
        .double()
        .numpy()
    )
    states[:, :2] = 0.0  # far from the origin float32 rounds the position, and nothing depends on it
    rng = np.random.default_rng([config.seed, count, 3])
    kick = config.kick if count > config.value_from else (0.0, 0.0)
    v, w = robot.space.velocity
    kicked = ((np.arange(len(states)) + count) % 2 == 0)[:, None] | (
        not config.undisturbed or count <= config.risk_from
    )
    states[:, v] += kicked * kick[0] * rng.standard_normal((len(states), 3))
    states[:, w] += kicked * kick[1] * rng.standard_normal((len(states), 3))
    rest = (np.arange(len(states)) + count) % config.carry == 0
    states[rest | (robot.upright(states) < UPRIGHT)] = np.nan
    return states


def _fit(robot: Ant, model: MLP, folder: Path, out: Path, config: LearnConfig, r: int) -> None:
    rows = data.load(folder, robot.name, robot.space.n_state, robot.space.n_action, robot.tell)
    symmetries = robot.symmetries() if config.symmetry else ()
    if r == 0:
        norm = model.fit_norm(rows.s, rows.s_next, symmetries)
        net = model.init(torch.Generator().manual_seed(config.seed))
        theta, old_gains = Theta(net, norm, {}), torch.ones(0, model.n_acting)
        start = training.fresh(objectives.split(theta))
    else:
        theta = checkpoint.load(out / f"round-{r - 1:03d}.safetensors", robot.name, robot.space).theta
        old_gains = load_file(out / f"gains-{r - 1:03d}.safetensors")["gains"]
        fields = replace(config.train, seed=config.seed * 1000 + r - 1)
        start = training.resume(out / f"train-{r - 1:03d}.safetensors", fields)._replace(step=0)
    gains = model.neutral.repeat(int(rows.episode.max()) + 1, 1)
    if config.gains:
        gains = explain(model, theta, rows, old_gains, everything=r in REVISIT)
    sampler = objectives.Sampler.of(rows)
    if r >= config.risk_from and config.share:
        sampler = sampler.favouring(before_falls(robot, rows, config.before), config.share)
    loss = objectives.regression(model, theta.norm, rows, gains, sampler, config.batch, symmetries)
    fields = replace(config.train, seed=config.seed * 1000 + r)
    losses: list[float] = []

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(config.seed * 1000 + r)

    def foresee() -> tuple[Params, Params]:
        behind, chance = {}, {}
        everything, last = torch.ones(rows.n, dtype=torch.bool), r == config.rounds
        # They see no damage: the cost-to-go of robots that limp, or lie on short legs, is not that of one which runs (docs/trials/ant.md).
        whole, members = last and config.whole, config.members if last else 1
        if r >= config.value_from:
            seen = data.among(rows, rows.healthy if whole else everything)
            behind = value.fit(robot.space, seen, robot.cost, symmetries, config.value, generator(), members)
        if r >= config.risk_from:
            seen = data.among(rows, ~short_legged(model, rows) if whole else everything)
            chance = risk.fit(robot.space, seen, robot.tipped, symmetries, config.risk, generator(), members)
        return behind, chance

    with ThreadPoolExecutor(1) as beside:
        foreseen = beside.submit(foresee)
        state = training.fit(loss, start, fields, report=lambda p: losses.append(p.loss))
    net = objectives.join(state.params, theta.norm).net
    meta = theta.meta | measure(model, Theta(net, theta.norm, {}), rows, gains, sampler)
    record = {"config": asdict(config), "round": r, "transitions": rows.n, "loss": sum(losses) / max(1, len(losses))}
    record |= {"git": checkpoint.git_revision()}
    checkpoint.save(
        out / f"round-{r:03d}.safetensors",
        robot.name,
        model,
        Theta(net, theta.norm, meta, *foreseen.result()),
        record,
    )
    write(out / f"gains-{r:03d}.safetensors", {"gains": gains}, {})
    training.save(out / f"train-{r:03d}.safetensors", state, fields)
    for old in (*out.glob(f"train-{r - 2:03d}.*"), *out.glob(f"gains-{r - 2:03d}.*")):
        old.unlink()


# The rounds in which old episodes are explained anew: often while the model changes fast.
REVISIT = frozenset({1, 2, 3, 5, 8, 12, 16, 20, 26, 32, 40, 50, 60, 80, 100})


def explain(model: MLP, theta: Theta, rows: data.Rows, old: Tensor, everything: bool) -> Tensor:
    """The motor gains and parameters of the body of every episode (episodes, n_acting): of the new ones, or of all, from the model as it is."""
    episodes = int(rows.episode.max()) + 1
    gains = torch.cat((old, model.neutral.expand(episodes - len(old), -1)))
    if not theta.meta:
        return gains
    return episode_gains(model, theta, rows, torch.arange(0 if everything else len(old), episodes), gains)


def short_legged(model: MLP, rows: data.Rows) -> torch.Tensor:
    """(n,) bool: recorded on a robot that is told to have a short leg."""
    return (rows.told[:, model.space.n_action :] > 0).any(1)


def before_falls(robot: Ant, rows: data.Rows, within: int) -> Tensor:
    """Numbers of the rows that a healthy robot's fall follows within so many steps."""
    falls, _ = risk.ahead(robot.tipped(rows.s_next), rows.episode, within)
    return (falls & ~robot.tipped(rows.s) & rows.healthy).nonzero()[:, 0]


@torch.no_grad()
def measure(model: MLP, theta: Theta, rows: data.Rows, gains: Tensor, sampler: objectives.Sampler) -> Params:
    """Effectiveness' meta parameters: the residual deviation on held-out episodes, and the settings of its filter."""
    at = sampler.held_out[:: max(1, len(sampler.held_out) // 4000)]
    a = model.acting(rows.a[at], gains[rows.episode[at]])
    mean = mul(model.psi(theta.net, model.inputs(theta, rows.s[at], a)[None]), theta.net["K"]).mean(1)[0]
    sigma = (model.target(theta, rows.s[at], rows.s_next[at]) - mean).std(0).clamp_min(1e-3)
    return {"effectiveness.sigma": sigma, **Effectiveness(model).meta(theta)}


__all__ = ["Checkpoint", "LearnConfig", "learn"]
