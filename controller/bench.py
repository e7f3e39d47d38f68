"""`sealegs bench`: what adapt, rollout, plan and step cost on this machine, against two things measured in the same
rounds: the machine's float32 matrix product at the same shapes (the limit), and pytorch-mppi on the same network (the peer).

Everything is timed on one thread, in rounds: each round runs every work once, in an order drawn anew, so that a machine
which slows down slows them all. Latencies are wall time; ratios and rates are processor time, which other programs disturb
less. The interval of a ratio of medians is a percentile bootstrap over rounds (Efron and Tibshirani 1993, ch. 13), which
keeps the pairing.
"""

import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from controller import collect, peer, report, workload
from controller.config import AdapterName, check_seeds
from controller.workload import DTYPES, Size, Work, Workload
from dynamics import data
from dynamics.checkpoint import git_revision
from dynamics.types import as_phi
from planners.rollout import evaluate
from robots.ant import Ant
from robots.condition import HEALTHY

TARGETS = {"float32": 1.2, "bfloat16": 3.0}  # times as fast as pytorch-mppi
GEMM, FAST = "gemm float32", f"{peer.PACKAGE}, our predict"


@dataclass(frozen=True)
class Collected:
    """A shard, as `sealegs collect` makes it."""

    robots: int = 32
    steps: int = 150
    rounds: int = 15


@dataclass(frozen=True)
class BenchConfig:
    """What is measured. The p99 of so few rounds is nearly their worst."""

    sizes: tuple[Size, ...] = field(default_factory=lambda: (Size(128, 12), Size(512, 20)))
    rounds: int = 60
    k: int = 32
    width: int = 256
    depth: int = 3
    """of the random network, where no weights are given or shipped"""
    states: int = 16
    """from which candidates are ranked in both precisions"""
    ranked: Size = field(default_factory=lambda: Size(512, 20))
    top: int = 50
    collected: Collected = Collected()


class Times(dict[str, np.ndarray]):
    """name -> (rounds, 2) wall and processor time [ms]."""

    def cpu(self, name: str) -> np.ndarray:
        return self[name][:, 1]

    def wall(self, name: str) -> np.ndarray:
        return self[name][:, 0]


def measure(works: dict[str, Work], rounds: int, rng: np.random.Generator) -> Times:
    """Run every work once a round, in random order, after two rounds that do not count."""
    names, times = list(works), Times({name: np.empty((rounds, 2)) for name in works})
    for i in range(-2, rounds):
        for j in rng.permutation(len(names)):
            wall, cpu = time.perf_counter(), time.thread_time()
            works[names[j]]()
            cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
            if i >= 0:
                times[names[j]][i] = 1e3 * wall, 1e3 * cpu
    return times


def ratio(slow: np.ndarray, fast: np.ndarray, rng: np.random.Generator, draws: int = 2000) -> dict[str, float]:
    """Paired (rounds,) times -> ratio of their medians, with a 95% interval."""
    pick = rng.integers(len(slow), size=(draws, len(slow)))
    many = np.median(slow[pick], 1) / np.median(fast[pick], 1)
    low, high = np.percentile(many, (2.5, 97.5))
    return {"ratio": float(np.median(slow) / np.median(fast)), "low": float(low), "high": float(high)}


def flops(work: Work) -> int:
    """Of the matrix products of one call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def _counted(name: str) -> str:
    """The work whose products are counted for this one. Where float32's are done in C (dynamics.fused) nothing sees them; bfloat16's are the same."""
    return "rollout bfloat16" if name == FAST else name.replace("float32", "bfloat16")


def rows(works: dict[str, Work], times: Times, size: str) -> list[dict[str, Any]]:
    """One for each work that was timed: latency, rate, and the rate as a fraction of the GEMM's in the same rounds."""
    peak = flops(works[GEMM]) / np.median(times.cpu(GEMM))
    out = []
    for name in times:
        count, (p50, p99) = flops(works.get(_counted(name), works[name])), np.percentile(times.wall(name), (50, 99))
        rate = count / np.median(times.cpu(name))
        out.append({
            "work": name, "size": size, "p50_ms": float(p50), "p99_ms": float(p99),
            "cpu_p50_ms": float(np.median(times.cpu(name))), "gflop": count / 1e9,
            "gflop_per_s": float(rate / 1e6), "of_float32_gemm": float(rate / peak),
        })  # fmt: skip
    return out


def ranking(w: Workload, config: BenchConfig) -> dict[str, Any]:
    """Do both precisions prefer the same candidates? Spearman's correlation of their costs, and how many of the `top`
    cheapest agree, over states of the recorded walk."""
    s, predict = (
        w.walk[: config.states, -1],
        {n: w.model.stepper(as_phi(w.theta), dtype) for n, dtype in DTYPES.items()},
    )
    rngs = [torch.Generator().manual_seed(i) for i in range(len(s))]
    actions = workload.candidates(w.model.space.n_action, config.ranked, rngs)
    order = [evaluate(f, w.robot.cost, s, actions).argsort(1) for f in predict.values()]
    ranks = torch.stack([o.argsort(1).double() for o in order], 1)  # (states, 2, n)
    spearman = [float(torch.corrcoef(pair)[0, 1]) for pair in ranks]
    overlap = (ranks < config.top).all(1).sum(1).tolist()
    return {
        "candidates": config.ranked.samples, "horizon": config.ranked.horizon, "states": len(s), "top": config.top,
        "spearman": spearman, "spearman_median": float(np.median(spearman)), "spearman_min": min(spearman),
        "overlap": overlap, "overlap_median": float(np.median(overlap)), "overlap_min": min(overlap),
    }  # fmt: skip


def collecting(config: BenchConfig, seed: int, rng: np.random.Generator) -> dict[str, Any]:
    """Throughput of `sealegs collect` over that of the bare simulator, which plays the same actions from the same states, on as many threads.
    Both by wall time, in rounds of one each: the simulator's threads are not this one."""
    b, t, ant = config.collected.robots, config.collected.steps, Ant()
    times = np.empty((config.collected.rounds, 2))
    with tempfile.TemporaryDirectory() as folder:
        for i in range(-1, len(times)):
            start = time.perf_counter()
            collect.explore(ant, Path(folder), ["healthy"] * b, t, seed + i + 1)
            took = time.perf_counter() - start
            recorded, _ = data.read_shard(
                data.shards(Path(folder))[-1], ant.name, ant.space.n_state, ant.space.n_action
            )
            ant.reset([HEALTHY] * b, collect.seeds(seed + i + 1, b))
            bare = ant.physics.bare(ant.raw, recorded["a"].double().numpy(), ant.conditions)
            start = time.perf_counter()
            bare()
            if i >= 0:
                times[i] = took, time.perf_counter() - start
    ant.physics.close()
    rates = b * t / np.median(times, 0)
    return {
        "robots": b, "steps": t, "rounds": len(times), "target": 0.8,
        "transitions_per_s": float(rates[0]), "bare_transitions_per_s": float(rates[1]),
        "of_bare": ratio(times[:, 1], times[:, 0], rng),
    }  # fmt: skip


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.processor()), "cores": os.cpu_count(),
        "bfloat16": [f for f in ("amx_bf16", "avx512_bf16") if f in flags],
        "capability": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__,
        "threads": torch.get_num_threads(), "python": platform.python_version(), "system": platform.platform(),
        "load_before": os.getloadavg(),
    }  # fmt: skip


def run(out: Path, seed: int, checkpoint: Path | None, config: BenchConfig | None = None) -> dict[str, Any]:
    """Measure, write out/bench.json, print a table. -> what was written. Raises CheckpointError, UsageError."""
    check_seeds(seed)
    config, threads = config or BenchConfig(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # the peer draws from torch's global generator
            result = _run(out, seed, checkpoint, config)
    finally:
        torch.set_num_threads(threads)
    report.write_json(out / "bench.json", result)
    _show(result, Console())
    return result


def _run(out: Path, seed: int, checkpoint: Path | None, config: BenchConfig) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    w = workload.make(seed, checkpoint, k=config.k, robots=config.states, width=config.width, depth=config.depth)
    # What nothing can be written to is refused before minutes are spent.
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.partial").touch()
    (out / "bench.partial").unlink()
    result: dict[str, Any] = {
        "command": f"sealegs bench --seed {seed}" + (f" --weights {checkpoint}" if checkpoint else ""),
        "config": asdict(config), "machine": machine(), "revision": git_revision(), "weights": w.weights,
        "network": {"width": w.model.width, "depth": w.model.depth, "ensemble": w.model.ensemble},
    }  # fmt: skip
    # The clock's own cost would show beside one product of k rows: ten of them.
    works: dict[str, Work] = {GEMM: workload.gemm(w, config.k, 10, torch.float32)}
    works |= {f"adapt {name}": workload.adapt(w, name) for name in get_args(AdapterName)}
    times = measure(works, config.rounds, rng)
    result["rows"] = rows(works, times, f"k = {config.k}")
    result["peer"] = {"package": peer.PACKAGE, "skipped": peer.missing(), "targets": TARGETS, "sizes": []}
    for size in config.sizes:
        works = {}
        for name, dtype in DTYPES.items():
            works[f"gemm {name}"] = workload.gemm(w, size.samples, size.horizon, dtype)
            works[f"rollout {name}"] = workload.rollout(w, size, dtype)
            works[f"plan {name}"] = workload.plan(w, size, dtype)
            works[f"step {name}"] = workload.step(w, size, name)
            works[f"mppi {name}"] = workload.mppi(w, size, dtype)
        if not result["peer"]["skipped"]:
            works |= {peer.PACKAGE: peer.command(w, size, fast=False), FAST: peer.command(w, size, fast=True)}
        # Without instructions for it a product of bfloat16s takes fifty times as long: minutes, to say nothing.
        timed = {n: work for n, work in works.items() if result["machine"]["bfloat16"] or "bfloat16" not in n}
        times = measure(timed, config.rounds, rng)
        result["rows"] += rows(works, times, str(size))
        if not result["peer"]["skipped"]:
            result["peer"] |= {"version": peer.version()}
            result["peer"]["sizes"].append({"size": str(size), "against": _against(times, rng)})
    result["ranking"] = ranking(w, config)
    result["collect"] = collecting(config, seed, rng)
    result["machine"]["load_after"] = os.getloadavg()
    return result


def _against(times: Times, rng: np.random.Generator) -> list[dict[str, Any]]:
    """How many times as fast as the peer each precision is, with the peer's own network and with our predict in it; and
    at_most, were the products all there is to it."""
    return [
        {
            "ours": name, "peer": rival, "target": TARGETS[name] if rival == peer.PACKAGE else None,
            "at_most": float(np.median(times.cpu(rival)) / np.median(times.cpu(f"gemm {name}"))),
        } | ratio(times.cpu(rival), times.cpu(f"mppi {name}"), rng)
        for rival in (peer.PACKAGE, FAST)
        for name in DTYPES
        if f"mppi {name}" in times
    ]  # fmt: skip


def _show(result: dict[str, Any], console: Console) -> None:
    m, net, peers, r = result["machine"], result["network"], result["peer"], result["ranking"]
    _table(
        console,
        f"{m['cpu']}, {m['cores']} cores, torch {m['torch']}, {m['threads']} thread; {net['depth']} x {net['width']}",
        ("work", "size", "p50 ms", "p99 ms", "GFLOP/s", "of float32 GEMM"),
        [
            (x["work"], x["size"], f"{x['p50_ms']:.2f}", f"{x['p99_ms']:.2f}", f"{x['gflop_per_s']:.0f}",
             f"{x['of_float32_gemm']:.0%}") for x in result["rows"]
        ],
    )  # fmt: skip
    if peers["skipped"]:
        console.print(peers["skipped"], soft_wrap=True)
    else:
        _table(
            console,
            f"times as fast as {peers['package']} {peers['version']}",
            ("ours", "against", "size", "ratio", "95%", "at most", "target"),
            [
                (x["ours"], x["peer"], size["size"], f"{x['ratio']:.2f}", f"{x['low']:.2f} to {x['high']:.2f}",
                 f"{x['at_most']:.2f}", _verdict(x))
                for size in peers["sizes"] for x in size["against"]
            ],
        )  # fmt: skip
    if not m["bfloat16"]:
        console.print("bfloat16 is not timed: the processor has neither amx_bf16 nor avx512_bf16", soft_wrap=True)
    c = result["collect"]
    console.print(
        f"collect: {c['transitions_per_s']:.0f} transitions a second, {c['of_bare']['ratio']:.0%} ({c['of_bare']['low']:.0%} to "
        f"{c['of_bare']['high']:.0%}) of the bare simulator's ({c['target']:.0%} asked)",
        soft_wrap=True,
    )
    console.print(
        f"bfloat16 against float32, weights {result['weights']}, {r['states']} states: Spearman {r['spearman_median']:.5f} "
        f"(least {r['spearman_min']:.5f}); of the {r['top']} cheapest of {r['candidates']}, {r['overlap_median']:.0f} agree "
        f"(least {r['overlap_min']})",
        soft_wrap=True,
    )


def _verdict(x: dict[str, Any]) -> str:
    if x["target"] is None:
        return ""
    return f"{x['target']:.1f} {'met' if x['ratio'] >= x['target'] else 'missed'}"


def _table(console: Console, title: str, columns: tuple[str, ...], cells: list[tuple[str, ...]]) -> None:
    table = Table(title=title)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < 2 else "right", no_wrap=i == 0)
    for row in cells:
        table.add_row(*row)
    console.print(table)
