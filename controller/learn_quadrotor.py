"""From nothing to the quadrotor's weights: flights with random loads, then training.

    gather    PID flights in MuJoCo with noise in the commands; loads of 5-35% on cables of 0.3-0.9 m, hooked on and dropped in mid-air;
              wind, gusts and a weak rotor off and on
    train     the network, its noise and the latents of every stretch with one load (dynamics.elbo) -> quadrotor.safetensors;
              the adapters that move weights, each from there, by what follows their context -> quadrotor-last-layer, quadrotor-grbal

Every batch of flights is a shard on disk and training saves its state: a run that is killed and started again goes on where it was.
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from controller.baselines.pid import PID
from controller.config import BlindTraining, Training, at_least, check_seeds, check_training
from controller.flyer import N_Z, ROWS
from controller.report import write_json
from dynamics import checkpoint, data, objectives
from dynamics import train as training
from dynamics.adapt.gradient import GrBAL
from dynamics.adapt.last_layer import LastLayer
from dynamics.adapt.variational import Variational
from dynamics.elbo import LOG_SIGMA, Loads, beliefs, elbo
from dynamics.mlp import MLP
from dynamics.residual import SHARE, SPREAD, Residual
from dynamics.types import Params, Theta
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import Condition, ConditionError, Schedule, parse
from robots.trajectory import Reference, Trajectory, make

FRACTION, CABLE = (0.05, 0.35), (0.3, 0.9)  # what training may see; what is beyond is held out
NOISE = (0.04, 0.25)  # of the commands: thrust over the largest, body rates [rad/s]
COLOUR = 0.9  # correlation of the noise from one control period to the next

Say = Callable[[str], None]


@dataclass(frozen=True)
class LearnConfig:
    vehicle: str = "1kg"
    flights: int = 64
    """in a batch"""
    batches: int = 4
    steps: int = 700
    """of each flight"""
    width: int = 32
    depth: int = 2
    batch: int = 512
    train: BlindTraining = BlindTraining(steps=3000, lr=3e-3)
    meta: Training = Training(steps=800, lr=2e-3, validate_every=100)
    windows: int = 32
    past: int = 32
    future: int = 20
    seed: int = 0


def learn(config: LearnConfig, out: Path, say: Say) -> list[Path]:
    """Run, or go on with, what is in `out`. -> the checkpoints. Raises UsageError, VehicleError, ResumeError before anything is written."""
    at_least(8, flights=config.flights)
    at_least(1, batches=config.batches, steps=config.steps, width=config.width, depth=config.depth, batch=config.batch)
    at_least(1, windows=config.windows, past=config.past, future=config.future)
    check_seeds(config.seed)
    check_training("train", config.train)
    check_training("meta", config.meta)
    robot = Quadrotor(config.vehicle, "mujoco", payload_seen=True)
    settings, stamp = json.loads(json.dumps(asdict(config))), out / "learn.json"
    if stamp.exists():
        training.refuse_other(out, training.begun(stamp), settings)
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(stamp, settings)
    folder = out / "data"
    for i in range(len(data.shards(folder)), config.batches):
        say(f"flights {i + 1}/{config.batches}  {json.dumps(gather(robot, folder, config, i))}")
    robot.close()
    _same_data(out, folder)
    model = Residual(robot.vehicle, MLP(ROWS, config.width, config.depth), N_Z)
    rows, loads, of = recorded(model, folder, robot.name)
    paths = [out / f"{robot.name}{suffix}.safetensors" for suffix in ("", "-last-layer", "-grbal")]
    if not paths[0].exists():
        say(f"{rows.n} of {of} transitions teach something")
        say(f"trained  {json.dumps(_fit(model, rows, loads, config, paths[0], say))}")
    theta = checkpoint.load(paths[0], robot.name, ROWS).theta
    for adapter, path in zip((LastLayer(model.mlp), GrBAL(model.mlp)), paths[1:], strict=True):
        if not path.exists():
            say(f"trained  {json.dumps(_meta(model, adapter, theta, rows, config, path))}")
    return paths


def _same_data(out: Path, folder: Path) -> None:
    """Raises ResumeError where a training that was begun here saw other recordings."""
    stamp, ours = out / "data.json", {"data_sha256": data.digest(folder)}
    if stamp.exists():
        training.refuse_other(out, training.begun(stamp), ours)
    write_json(stamp, ours)


def gather(robot: Quadrotor, folder: Path, config: LearnConfig, batch: int) -> dict[str, Any]:
    """One batch of flights -> a shard of those that did not crash."""
    b, vehicle = config.flights, robot.vehicle
    rng = np.random.default_rng([config.seed, batch])
    texts = [schedule_text(rng, config.steps) for _ in range(b)]
    schedules = [parse(text, vehicle) for text in texts]
    paths = [_path(rng) for _ in range(b)]
    starts = np.array([path.at(np.zeros(1)).p[0] for path in paths])
    s = robot.reset([x.at(0) for x in schedules], [int(x) for x in rng.integers(2**31, size=b)], starts)
    t = np.arange(config.steps + 1) * robot.dt
    whole = Reference(*(np.stack(x) for x in zip(*(path.at(t) for path in paths), strict=True)))
    pilot = PID(vehicle)
    memory, noise = pilot.init(b), np.zeros((b, 4))
    size = np.array([NOISE[0] * vehicle.thrust_max_n, *[NOISE[1]] * 3]) * rng.uniform(0, 1, (b, 1))
    states, actions = [s], []
    for i in range(config.steps):
        robot.conditions = [x.at(i) for x in schedules]
        command, memory = pilot.step(s, Reference(*(x[:, i : i + 1] for x in whole)), memory)
        noise = COLOUR * noise + (1 - COLOUR**2) ** 0.5 * rng.standard_normal((b, 4))
        action = np.clip(vehicle.action(command + size * noise), -1, 1)
        s = robot.step(action)
        states.append(s)
        actions.append(action)
    segments = np.array([_segments(x, config.steps) for x in schedules])
    kept = ~robot.crashed
    before, a, after = (torch.as_tensor(np.stack(x, 1)[kept]) for x in (states[:-1], actions, states[1:]))
    meta = {
        "robot": robot.name,
        "vehicle": vehicle.name,
        "conditions": [x for x, keep in zip(texts, kept, strict=True) if keep],
        "by": "pid",
    }
    data.append(folder, before, a, after, torch.as_tensor(segments[kept]), meta)
    return {"flights": int(kept.sum()), "crashed": int((~kept).sum()), "transitions": int(kept.sum()) * config.steps}


def schedule_text(rng: np.random.Generator, steps: int) -> str:
    """A random flight in the notation of robots.quadrotor_condition: one to three loads or none, in still air or not, one rotor weak or none."""
    air = ""
    if rng.random() < 0.5:
        air = f"+wind:{rng.uniform(0, 4):.2f}:{rng.uniform(-180, 180):.0f}+gust:{rng.uniform(0, 0.8):.2f}"
    if rng.random() < 0.25:
        air += f"+rotor:{rng.integers(4)}:{rng.uniform(0.8, 1):.2f}"
    changes = [0, *sorted(int(x) for x in rng.integers(steps // 5, steps, rng.integers(0, 3)))]
    parts = []
    for i, at in enumerate(changes):
        load = f"payload:{rng.uniform(*FRACTION):.3f}:{rng.uniform(*CABLE):.3f}"
        if rng.random() < 0.3 and i:
            parts.append("+".join(f"{x}@{at}" for x in f"none{air}".split("+")))
        else:
            parts.append("+".join(f"{x}@{at}" for x in f"{load}{air}".split("+")))
    return "+".join(parts)


def _path(rng: np.random.Generator) -> Trajectory:
    kind = ("hover", "circle", "figure-eight", "square", "random", "random")[rng.integers(6)]
    return make(kind, rng.uniform(0.4, 2.0), rng)


def _segments(schedule: Schedule[Condition], steps: int) -> np.ndarray:
    """(steps,) counts the changes of what is carried and of the air."""
    at = [schedule.at(i) for i in range(steps)]
    return np.cumsum([0, *(now != was for was, now in itertools.pairwise(at))])


def recorded(model: Residual, folder: Path, robot: str) -> tuple[data.Rows, Loads, int]:
    """Every recording as rows of dynamics.residual, without those that teach nothing, and of how many transitions; half of the segments with a
    load know it. Raises DataError."""
    raw = data.load(folder, robot, 22, 4)
    share = []
    for path in data.shards(folder):
        tensors, meta = data.read_shard(path, robot, 22, 4)
        steps = tensors["a"].shape[1]
        if (of := meta.get("vehicle", model.vehicle.name)) != model.vehicle.name:
            raise data.DataError(
                f"{path} is of vehicle {of!r}; valid: of {model.vehicle.name!r}, for which `learn` was asked"
            )
        for text in meta.get("conditions") or ["none"] * len(tensors["a"]):  # of a real vehicle nobody knows
            try:
                schedule = parse(text, model.vehicle)
            except ConditionError as e:
                raise data.DataError(f"{path}: {e}") from e
            at = [schedule.at(i).payload for i in range(steps)]
            share += [p[0] / (1 + p[0]) if p else np.nan for p in at]
    before, after, good = model.rows(raw.s.double().numpy(), raw.a.double().numpy(), raw.s_next.double().numpy())
    if not good.any():
        raise data.DataError(
            f"{folder} holds no transition between two states of which the payload is equally far from the vehicle, to a millimetre; valid: one "
            "that hangs on a taut cable, or none"
        )
    every = torch.full((int(raw.episode.max()) + 1,), torch.nan)
    every[raw.episode] = torch.tensor(share)
    rows = data.Rows(*(x[good] for x in raw._replace(s=before, s_next=after)))
    return rows, Loads(every, torch.arange(len(every)) % 2 == 0), raw.n


def _norm(model: Residual, rows: data.Rows, loads: Loads) -> Params:
    """Of the features, the latent as it is; of what the nominal model lacks once it knows the load."""
    norm = model.mlp.fit_norm(rows.s, rows.s_next)
    latent = torch.arange(ROWS.n_feature) >= ROWS.n_feature - N_Z
    extra = ((loads.share - SHARE).nan_to_num())[rows.episode, None] * ROWS.pull(rows.s_next)
    left = ROWS.local(rows.s, rows.s_next) - torch.cat((extra, 0 * extra), 1)
    return norm | {
        "x_mean": torch.where(latent, 0.0, norm["x_mean"]), "x_std": torch.where(latent, 1.0, norm["x_std"]),
        "d_mean": torch.zeros(ROWS.n_delta), "d_std": left.clamp(-5, 5).std(0).clamp_min(0.05),
    }  # fmt: skip


def _fit(model: Residual, rows: data.Rows, loads: Loads, config: LearnConfig, path: Path, say: Say) -> dict[str, Any]:
    norm, rng = _norm(model, rows, loads), torch.Generator().manual_seed(config.seed)
    net = model.mlp.init(rng)
    net["K"] = torch.zeros_like(net["K"])  # training starts from the nominal model
    theta = Theta(net, norm, {"variational.log_sigma": torch.zeros(ROWS.n_delta)})
    params = objectives.split(theta) | beliefs(len(loads.share), N_Z)
    del params["net.V"]  # the noise does not depend on the state
    loss, validate = elbo(model, norm, rows, loads, objectives.Sampler.of(rows), config.batch)
    state_path, fields = path.with_suffix(".state"), replace(config.train, seed=config.seed)
    start = training.resume(state_path, fields) if state_path.exists() else training.fresh(params)
    before = validate(start.params)

    def report(p: training.Progress) -> None:
        if p.step % 500 == 0:
            say(f"step {p.step}  bound {p.loss:.3f}")

    state = training.fit(loss, start, fields, save_to=state_path, report=report)
    found = {n: w for n, w in state.params.items() if not n.startswith("q.")}
    theta = objectives.join(found, norm)
    meta = Variational(model.mlp).meta(theta) | {
        "variational.log_sigma": theta.meta["variational.log_sigma"].clamp(*LOG_SIGMA)
    }
    mean = state.params["q.mean"][:, 0] * SPREAD + SHARE
    inferred = ~loads.known & loads.share.isfinite()
    record = {"config": asdict(config), "transitions": rows.n, "segments": len(mean), "git": checkpoint.git_revision()}
    record |= {"bound_before": before, "bound": validate(state.params)}
    record |= {"vehicle": asdict(model.vehicle)}
    if inferred.any():
        record |= {"share_error": float((mean - loads.share)[inferred].abs().mean())}
    record |= {"sigma": [round(x, 4) for x in meta["variational.log_sigma"].exp().tolist()]}
    theta = Theta(theta.net | {"V": net["V"]}, norm, meta)
    checkpoint.save(path, "quadrotor", model.mlp, theta, record)
    return {k: v for k, v in record.items() if k not in ("config", "vehicle")}


def _meta(
    model: Residual, adapter: LastLayer | GrBAL, theta: Theta, rows: data.Rows, config: LearnConfig, path: Path
) -> dict[str, Any]:
    """Meta-train an adapter of weights from the network at z = 0, whose targets hold the load too."""
    norm = theta.norm | {"d_std": ROWS.local(rows.s, rows.s_next).std(0).clamp_min(0.05)}
    net = theta.net | {"K": theta.net["K"] * (theta.norm["d_std"] / norm["d_std"])}
    start = Theta(net, norm, {})
    start = start._replace(meta=adapter.meta(start))
    loss, validate = objectives.meta(
        model.mlp, adapter, norm, rows, objectives.Sampler.of(rows), config.windows, config.past, config.future
    )
    params = objectives.split(start)
    state_path, fields = path.with_suffix(".state"), replace(config.meta, seed=config.seed)
    begun = training.resume(state_path, fields) if state_path.exists() else training.fresh(params)
    before = validate(params)
    state = training.fit(loss, begun, fields, validate, state_path)
    record = {
        "config": asdict(config),
        "vehicle": asdict(model.vehicle),
        "git": checkpoint.git_revision(),
        "validation_before": before,
        "validation": state.best_loss,
    }
    checkpoint.save(path, "quadrotor", model.mlp, objectives.join(state.best, norm), record)
    return {k: v for k, v in record.items() if k not in ("config", "vehicle")}
