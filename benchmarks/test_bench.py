"""What a tick is made of, by pytest-benchmark. `sealegs bench` measures the same against the machine and against a peer."""

from typing import get_args

import pytest

from controller import peer, workload
from controller.config import AdapterName
from controller.workload import DTYPES


@pytest.mark.parametrize("name", get_args(AdapterName))
@pytest.mark.benchmark(group="adapt")
def test_adapt(benchmark, work, name):
    benchmark(workload.adapt(work, name))


@pytest.mark.benchmark(group="rollout")
def test_rollout(benchmark, work, size, precision):
    benchmark(workload.rollout(work, size, DTYPES[precision]))


@pytest.mark.benchmark(group="plan")
def test_plan(benchmark, work, size, precision):
    benchmark(workload.plan(work, size, DTYPES[precision]))


@pytest.mark.benchmark(group="step")
def test_step(benchmark, work, size, precision):
    benchmark(workload.step(work, size, precision))


@pytest.mark.benchmark(group="one iteration of MPPI")
def test_mppi(benchmark, work, size, precision):
    benchmark(workload.mppi(work, size, DTYPES[precision]))


@pytest.mark.skipif(peer.missing() is not None, reason=str(peer.missing()))
@pytest.mark.parametrize("fast", [False, True], ids=["its network", "our predict"])
@pytest.mark.benchmark(group="one iteration of MPPI")
def test_peer(benchmark, work, size, fast):
    benchmark(peer.command(work, size, fast))
