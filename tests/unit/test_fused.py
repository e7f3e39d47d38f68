"""What is in C beside what is in torch: as near to double precision, and a candidate's numbers are its own."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_stepper import SPACE, random, random_phi, states
from torch import Tensor

from dynamics import fused, scalar
from dynamics.mlp import MLP
from dynamics.types import Params, Phi, map_params
from native import build

MODEL = MLP(SPACE, width=256, depth=3, body=4)
needs_kernel = pytest.mark.skipif(
    fused._step(SPACE, 256, 3, 4, 15.0) is None, reason="no C compiler, or a processor without fused multiply-add"
)


@pytest.fixture
def forgotten():
    """What was compiled is looked for anew, before and after."""
    build._compiler.cache_clear()
    fused._step.cache_clear()
    yield
    build._compiler.cache_clear()
    fused._step.cache_clear()


def quick(model: MLP, phi: Phi):
    step = fused.stepper(model.space, model.width, model.depth, phi, model.neutral, 15.0)
    assert step is not None
    return step


def slow(model: MLP, phi: Phi, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fused, "stepper", lambda *_: None)
        return model.stepper(phi)


def make(b: int = 1, own: tuple[str, ...] = ()) -> Phi:
    """Of b robots; predicts what needs no clamping."""
    phi = random_phi(MODEL, own, True, b)
    return phi._replace(net=phi.net | {"K": 0.1 * phi.net["K"]})


def actions(b: int, n: int) -> Tensor:
    return random(b, n, SPACE.n_action, seed=7)


@needs_kernel
@pytest.mark.parametrize("own", [(), ("K",)], ids=["shared", "own head"])
@pytest.mark.parametrize("b, n", [(1, 1), (1, 32), (1, 96), (3, 37), (5, 1)])
def test_as_near_to_double_precision_as_torch(b, n, own, monkeypatch):
    phi, s, a = make(b, own), states(MODEL, b, n), actions(b, n)
    exact = Phi(map_params(Tensor.double, phi.net), map_params(Tensor.double, phi.norm), phi.gain.double())
    y = MODEL.normalised(exact, s.double(), a.double())[:, 0]
    assert 1 < y.abs().max() < 15
    truth = SPACE.retract(s.double(), exact.norm["d_mean"] + exact.norm["d_std"] * y)
    ours, theirs = (step(s, a).double() - truth for step in (quick(MODEL, phi), slow(MODEL, phi, monkeypatch)))
    # A sum of 300 products rounds to some ulp (1.2e-7) of numbers of some units.
    assert ours.abs().max() < 5e-6 and ours.square().mean() < 8 * theirs.square().mean()


@needs_kernel
@pytest.mark.parametrize("own", [(), ("K",), ("W1", "b2")], ids=["shared", "own head", "own weights"])
def test_a_candidate_has_the_same_bits_alone_and_in_any_batch(own):
    b, n = 4, 45
    phi, s, a = make(b, own), states(MODEL, b, n), actions(b, n)
    together = quick(MODEL, phi)(s, a)
    for i in range(b):
        net = {name: w[i : i + 1] if w.dim() == 4 else w for name, w in phi.net.items()}
        alone = quick(MODEL, phi._replace(net=net, gain=phi.gain[i : i + 1]))
        assert torch.equal(alone(s[i : i + 1], a[i : i + 1])[0], together[i])
        for j in range(n):
            assert torch.equal(alone(s[i : i + 1, j : j + 1], a[i : i + 1, j : j + 1])[0, 0], together[i, j])
    assert together.flatten(0, 1).unique(dim=0).shape[0] == b * n


@needs_kernel
def test_the_same_bits_whatever_the_layout_and_the_thread():
    phi = make(3)
    step = quick(MODEL, phi)
    given = [(states(MODEL, 3, n), actions(3, n)) for n in (5, 33, 64, 200)]
    expected = [step(s, a) for s, a in given]
    for (s, a), out in zip(given, expected, strict=True):
        rows = [x.movedim(-1, 0).contiguous().movedim(0, -1) for x in (s, a)]
        odd = [torch.cat((torch.zeros(1), x.movedim(-1, 0).flatten()))[1:] for x in (s, a)]
        shifted = [o.view(x.movedim(-1, 0).shape).movedim(0, -1) for o, x in zip(odd, (s, a), strict=True)]
        assert shifted[0].data_ptr() % 64
        assert torch.equal(step(*rows), out) and torch.equal(step(*shifted), out)
    with ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            for at, out in zip(range(4), threads.map(lambda i: step(*given[i]), range(4)), strict=True):
                assert torch.equal(out, expected[at])


@needs_kernel
@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_seen_in_its_candidate_alone(value):
    phi, s, a = make(2), states(MODEL, 2, 40), actions(2, 40)
    step = quick(MODEL, phi)
    clean = step(s, a)
    a[0, 7, 3] = value
    s[1, 35, 12] = value  # a joint's; its feature is clamped where it is infinite, but the state stays so
    out = step(s, a)
    bad = torch.zeros(2, 40, dtype=torch.bool)
    bad[0, 7] = bad[1, 35] = True
    assert torch.equal(~out.isfinite().all(-1), bad) and torch.equal(out[~bad], clean[~bad])


@needs_kernel
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["W0", "b0", "W1", "b1", "W2", "b2", "K"])
def test_weights_that_are_not_finite_are_seen_by_every_candidate(where, value):
    # Of an output that may be behind a relu for all inputs.
    phi = make()
    phi.net[where][..., 0] = -value
    out = quick(MODEL, phi)(states(MODEL, 1, 50), actions(1, 50))
    assert not out.isfinite().all(-1).any()


@needs_kernel
def test_an_overflow_inside_is_not_hidden_by_a_relu():
    phi = make()
    phi.net["W0"] = phi.net["W0"] * 1e30  # finite; the second layer's sums are not
    phi.net["W1"] = phi.net["W1"] * 1e30
    assert not quick(MODEL, phi)(states(MODEL, 1, 50), actions(1, 50)).isfinite().all(-1).any()


@needs_kernel
@pytest.mark.parametrize("width", [1, 20, 24, 33])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_any_width_and_depth(width, depth, monkeypatch):
    model = MLP(SPACE, width, depth)
    phi, s, a = random_phi(model, (), False, 1), states(model, 1, 11), actions(1, 11)
    torch.testing.assert_close(quick(model, phi)(s, a), slow(model, phi, monkeypatch)(s, a), atol=1e-5, rtol=1e-5)


@needs_kernel
def test_what_does_not_fit_is_refused():
    phi, s, a = make(3, ("K",)), states(MODEL, 3, 8), actions(3, 8)
    step = quick(MODEL, phi)
    for wrong in ((s[..., :-1], a), (s, a[..., :-1]), (s, a[:, :5]), (s, a[:2]), (s[:2], a[:2])):
        with pytest.raises(ValueError, match="wanted"):
            step(*wrong)
    for name in ("W0", "W2", "K"):
        with pytest.raises(ValueError, match="not this model's"):
            quick(MODEL, phi._replace(net=phi.net | {name: phi.net[name][..., :-1, :]}))


@pytest.mark.parametrize("what", ["absent", "fails", "open to others"])
def test_where_it_cannot_be_compiled_torch_steps(what, forgotten, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "sealegs"
    if what == "absent":
        monkeypatch.setenv("CC", str(tmp_path / "cc"))
    elif what == "fails":
        (tmp_path / "cc").write_text('#!/bin/sh\n[ "$1" = --version ]\n')
        (tmp_path / "cc").chmod(0o755)
        monkeypatch.setenv("CC", str(tmp_path / "cc"))
    else:
        folder.mkdir()
        folder.chmod(0o777)
    phi, s, a = make(2), states(MODEL, 2, 9), actions(2, 9)
    assert fused.stepper(SPACE, 256, 3, phi, MODEL.neutral, 15.0) is None
    assert torch.equal(MODEL.stepper(phi)(s, a), slow(MODEL, phi, monkeypatch)(s, a))
    assert not folder.exists() or not os.listdir(folder)


@needs_kernel
def test_it_is_kept_for_this_processor_alone(forgotten, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    phi = make()
    quick(MODEL, phi)
    fused._step.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
        quick(MODEL, phi)
    fused._step.cache_clear()
    monkeypatch.setattr(build, "_processor", lambda: "another")
    quick(MODEL, phi)
    assert len(os.listdir(tmp_path / "sealegs")) == 2


def judged(width: int) -> Params:
    return scalar.init(SPACE.directed(states(MODEL, 1, 400)[0]), width, torch.Generator().manual_seed(0))


@needs_kernel
@pytest.mark.parametrize("width", [1, 20, 128])
@pytest.mark.parametrize("shape", [(1, 1), (3, 37), (5, 2, 33)])
def test_scalars_are_as_near_to_double_precision_as_torchs_each_by_itself(shape, width):
    net, s = judged(width), random(*shape, SPACE.n_state, seed=3)
    net |= {n: w + 0.1 * random(*w.shape, seed=9) for n, w in net.items() if n.startswith(("W", "b"))}
    exact = scalar.apply(map_params(Tensor.double, net), SPACE.directed(s).double().flatten(0, -2)).view(shape)
    of = fused.scalar(SPACE, net, 15.0)
    assert of is not None
    got = of(s)
    assert got.shape == shape and (got - exact).abs().max() < 2e-6 * (1 + exact.abs().max())
    flat = s.flatten(0, -2)
    assert torch.equal(torch.stack([of(x) for x in flat]), got.flatten())
    assert torch.equal(of(s.movedim(-1, 0).contiguous().movedim(0, -1)), got)
    flat[-1, 20] = torch.nan
    bad = of(s)
    assert bad.flatten()[-1].isnan() and torch.equal(bad.flatten()[:-1], got.flatten()[:-1])
    with pytest.raises(RuntimeError):
        of(s[..., :-1])
