"""Robot and controller on two hosts with a bad network between them, against the same hosts and seeds with a good one.

    python -m controller.ros.two_hosts --robot ant --out results/ros/two-hosts-ant

The hosts are two network namespaces of this machine with a cable (veth) between them, so discovery and every message go through UDP over a
subnet. Loss, delay and jitter come from the robot node's relay, seeded: of the state's messages alone (`states`), or of the commands too
(`both ways`: then 20 ms out and 20 ms back). Needs root and iproute2. Where the machine is too slow for real time, `--speed` slows /clock.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from controller.config import ControllerConfig, UsageError
from controller.ros.commands import Ros, RosQuadrotor, needs_ros, ros
from controller.ros.controller_config import ControlConfig, real_time
from controller.ros.flight_config import FlightConfig
from controller.ros.keep import keep, resume
from controller.ros.report import report

Network = Literal["lossless", "states", "both ways"]
ADDRESSES = ("10.213.0.1/24", "10.213.0.2/24")


@dataclass(frozen=True)
class TwoHostsConfig:
    """Seeds x networks: two-hosts.json, two-hosts.md. Runs that the folder has already are not made again."""

    robot: Literal["ant", "quadrotor"] = "ant"
    networks: tuple[Network, ...] = ("lossless", "states", "both ways")
    drop: float = 0.05
    """probability that a message is lost"""
    delay_ms: float = 20.0
    jitter_ms: float = 10.0
    """standard deviation"""
    max_delay_ms: float = ControlConfig.max_delay_ms
    """a state this much later than the quickest of the last is not used; 0: never late"""
    repeat_commands: int = 0
    """both ways: how often each command is sent again"""
    delay_compensation: bool = True
    command_way_known: bool = True
    """both ways: the controller is told the relay's mean delay of commands"""
    condition: str = ""
    seeds: tuple[int, ...] = (100, 101, 102, 103, 104)
    duration: float = 10.0
    """of the robot's time [s]"""
    speed: float = 1.0
    """times real time; other than 1 with /clock"""
    domain: int = 76
    out: Path = Path("runs/two-hosts")
    controller: ControllerConfig = field(default_factory=real_time)
    """of the ant"""
    flight: FlightConfig = field(default_factory=FlightConfig)
    """of the quadrotor"""


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(
            f"`ip {' '.join(words)}` said {done.stderr.strip()!r}; valid: root, with network namespaces in the kernel"
        )


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """The names of two network namespaces that see each other and nobody else; removed whatever happens. Raises UsageError."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        raise UsageError(
            "two hosts are two network namespaces of this machine; valid: root, with iproute2 (`ip`) installed"
        )
    hosts = tuple(f"sealegs-{os.getpid()}-{side}" for side in "ab")
    cables = tuple(f"sl{os.getpid()}{side}" for side in "ab")
    asked = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        for host in hosts:
            _ip("netns", "add", host)
        _ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for host, cable, address in zip(hosts, cables, ADDRESSES, strict=True):
            _ip("link", "set", cable, "netns", host)
            _ip("-n", host, "addr", "add", address, "dev", cable)
            for device in ("lo", cable):
                _ip("-n", host, "link", "set", device, "up")
            _ip("-n", host, "route", "add", "224.0.0.0/4", "dev", cable)
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:  # a cable goes with its namespace
            subprocess.run(["ip", "netns", "del", host], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", cables[0]], capture_output=True, check=False)
        signal.signal(signal.SIGTERM, asked)


def run(c: TwoHostsConfig, network: Network, seed: int, hosts: tuple[str, str]) -> dict[str, Any]:
    """One run -> score: the ant's mean forward speed [m/s], or the quadrotor's RMS distance from its path [m], from second 1 on."""
    there, here = hosts
    relay: dict[str, Any] = {}
    if network != "lossless":
        relay = {
            "drop": c.drop,
            "delay_ms": c.delay_ms,
            "jitter_ms": c.jitter_ms,
            "relay_commands": network == "both ways",
            "repeat_commands": c.repeat_commands if network == "both ways" else 0,
            "command_delay_ms": c.delay_ms if network == "both ways" and c.command_way_known else 0.0,
        }
    common: dict[str, Any] = {
        "duration": c.duration, "speed": c.speed, "condition": c.condition, "seed": seed, "domain": c.domain,
        "max_delay_ms": c.max_delay_ms, "delay_compensation": c.delay_compensation, **relay,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "bag"
        asked = (
            Ros(record=bag, controller=c.controller, **common)
            if c.robot == "ant"
            else RosQuadrotor(record=bag, flight=c.flight, **common)
        )
        ros(asked, {"robot": there, "record": there, "controller": here})
        told = report(bag, Path(folder) / "report")
    score = told["motion"]["mean_forward_speed_m_s"] if c.robot == "ant" else told["tracking"]["rmse_m"]
    return {
        "network": network, "seed": seed, "score": score, "commands": told["commands"], "states": told["states"],
        "states_missing": told["lost"]["states_missing"], "states_not_used": told["lost"]["states_not_used"],
        "without_a_new_plan": told["without_a_new_plan"], "state_to_command_ms": told["state_to_command_ms"],
        "stamp_to_command_ms": told["stamp_to_command_ms"],
    }  # fmt: skip


def kept(robot: str, rows: list[dict[str, Any]], network: Network) -> list[float]:
    """By seed: the score with this network as a share of the lossless one; of a quadrotor, whose score is an error, lossless by lossy."""
    by = {(r["network"], r["seed"]): r["score"] for r in rows}
    pairs = [(by[network, s], by["lossless", s]) for n, s in by if n == network and ("lossless", s) in by]
    return [mine / best if robot == "ant" else best / mine for mine, best in pairs]


def table(robot: str, rows: list[dict[str, Any]]) -> str:
    unit, scale = ("mean forward speed [m/s]", 1.0) if robot == "ant" else ("RMS distance from the path [mm]", 1e3)
    lines = [
        f"| network | runs | {unit}: mean (lowest to highest) | of the lossless score, mean (lowest) | states lost | states not used | "
        "commands without a new plan | stamp to command p50 / p99 [ms] |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network in dict.fromkeys(r["network"] for r in rows):
        mine = [r for r in rows if r["network"] == network]
        scores = [scale * r["score"] for r in mine]
        shares = kept(robot, rows, network)
        share = f"{100 * np.mean(shares):.0f}% ({100 * min(shares):.0f}%)" if shares else "-"
        states = sum(r["states"] + r["states_missing"] for r in mine)
        commands = sum(r["commands"] for r in mine)
        parts = (
            network, len(mine), f"{np.mean(scores):.2f} ({min(scores):.2f} to {max(scores):.2f})", share,
            f"{100 * sum(r['states_missing'] for r in mine) / states:.1f}%",
            f"{100 * sum(r['states_not_used'] for r in mine) / states:.1f}%",
            f"{100 * sum(sum(r['without_a_new_plan'].values()) for r in mine) / commands:.1f}%",
            " / ".join(f"{np.mean([r['stamp_to_command_ms'][q] for r in mine]):.0f}" for q in ("p50", "p99")),
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, parts)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    c = tyro.cli(TwoHostsConfig)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SUBNET"
    os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"  # not the shared memory of the one machine
    settings = {k: v for k, v in asdict(c).items() if k not in ("out", "seeds", "networks", "domain")}
    try:
        needs_ros()
        rows = resume(c.out, "two-hosts", settings)
        with two_hosts() as hosts:
            for seed, network in itertools.product(c.seeds, c.networks):
                if any(r["network"] == network and r["seed"] == seed for r in rows):
                    continue
                rows.append(run(c, network, seed, hosts))
                print(json.dumps(rows[-1]), flush=True)
                keep(c.out, "two-hosts", settings, rows, table(c.robot, rows))
    except UsageError as e:
        print(f"sealegs: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
