"""Checkpoints: what is saved is loaded, and one that is cut, misshapen, not finite or another robot's is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_model import SPACE, each_ensemble, make_theta

from dynamics import checkpoint, scalar
from dynamics.checkpoint import CheckpointError
from dynamics.mlp import MLP
from dynamics.types import Params


@each_ensemble
def test_save_then_load_is_bit_equal_but_for_value_and_risk_which_are_kept_in_half_precision(e, tmp_path, walk):
    model = MLP(SPACE, 16, 2, e)
    theta = make_theta(model, walk)._replace(meta={"grbal.log_rate.W0": torch.tensor(-3.0), "x.y": torch.randn(3)})
    value, risk = (scalar.init(torch.randn(9, 29), 5, torch.Generator().manual_seed(i)) for i in range(2))
    theta = theta._replace(value=value, risk=risk)
    path, record = tmp_path / "new" / "model.safetensors", {"seed": 3, "config": {"lr": 1e-3}}
    checkpoint.save(path, "ant", model, theta, record)
    loaded = checkpoint.load(path, "ant", SPACE)
    assert loaded.model == model and loaded.record == record
    for name, group, other in zip(theta._fields, theta, loaded.theta, strict=True):
        assert group.keys() == other.keys()
        halved = {n: w.half().float() if name in ("value", "risk") else w for n, w in group.items()}
        assert all(torch.equal(w, other[n]) and w.dtype == other[n].dtype for n, w in halved.items())
    first = path.read_bytes()
    checkpoint.save(path, "ant", loaded.model, loaded.theta, loaded.record)
    assert path.read_bytes() == first and not list(path.parent.glob("*.partial"))


@pytest.mark.parametrize("at", range(0, 100, 7))
def test_a_checkpoint_cut_anywhere_is_refused(at, tmp_path, walk):
    model = MLP(SPACE, 16, 2)
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, "ant", model, make_theta(model, walk), {})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * at // 100])
    with pytest.raises(CheckpointError, match="truncated"):
        checkpoint.load(path, "ant", SPACE)


def test_a_checkpoint_with_another_tensor_missing_misshapen_or_not_finite_is_refused(tmp_path, walk):
    model = MLP(SPACE, 16, 2)
    path = tmp_path / "model.safetensors"
    behind = scalar.init(torch.randn(9, 29), 5, torch.Generator().manual_seed(1))
    checkpoint.save(path, "ant", model, make_theta(model, walk)._replace(value=behind, risk=behind), {})
    good = load_file(path)
    header = {"format": 1, "robot": "ant", "model": {"width": 16, "depth": 2, "ensemble": 1}, "record": {}}

    def refused(tensors: Params, match: str, **changed) -> None:
        save_file(tensors, path, {"sealegs": json.dumps(header | changed)})
        with pytest.raises(CheckpointError, match=match):
            checkpoint.load(path, "ant", SPACE)

    nan = good["net.K"].clone()
    nan[0, 3, 5] = torch.nan
    refused(good | {"net.K": nan}, r"net\.K is not finite")
    refused(good | {"weights.K": nan}, r"weights\.K")
    refused(good | {"net.K": good["net.K"][:, 1:].clone()}, r"net\.K has shape")
    refused({n: w for n, w in good.items() if n != "norm.d_std"}, r"norm\.d_std has shape None")
    refused({n: w for n, w in good.items() if n != "value.b1"}, r"value\.b1 has shape None")
    refused({n: w for n, w in good.items() if n != "value.W0"}, r"value\.W0 has shape None")
    refused(good | {"value.W0": good["value.W0"][1:].clone()}, r"value\.W0 has shape")
    refused(good | {"value.W2": good["value.W2"][:, 0].clone()}, r"value\.W2 has shape")
    refused(good | {"risk.b1": good["risk.b1"][1:].clone()}, r"risk\.b1 has shape")
    refused(good, "wanted", model={"width": 17, "depth": 2, "ensemble": 1})
    refused(good, "bad model header", model={"width": 16})
    refused(good, "bad model header", model=None)
    refused(good, "for robot 'cheetah', wanted 'ant'", robot="cheetah")
    refused(good, "format 1", format=2)
    save_file(good, path, {"sealegs": json.dumps(header)})
    checkpoint.load(path, "ant", SPACE)  # and the same without a fault is taken
