"""One thread, one network, one recorded walk for every benchmark: `python -m pytest benchmarks/` (extra `bench`)."""

import pytest
import torch

from controller import bench, workload
from controller.workload import Workload


@pytest.fixture(scope="session")
def work() -> Workload:
    """k = 32; the shipped weights, or a random 3 x 256."""
    torch.set_num_threads(1)
    return workload.make(0, None, k=32)


@pytest.fixture(params=[(128, 12), (512, 20)], ids=lambda p: f"{p[0]}x{p[1]}")
def size(request) -> workload.Size:
    """samples x horizon"""
    return workload.Size(*request.param)


@pytest.fixture(params=workload.DTYPES)
def precision(request) -> str:
    if request.param == "bfloat16" and not bench.machine()["bfloat16"]:
        pytest.skip("the processor has neither amx_bf16 nor avx512_bf16")
    return request.param
