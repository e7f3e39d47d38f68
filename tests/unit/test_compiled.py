"""Machine code in the place of CasADi's virtual machine: the same bits, or the virtual machine."""

import os
import stat

import casadi
import numpy as np
import pytest

from native import build
from native.compiled import compiled
from native.symbolic import Symbolic

needs_compiler = pytest.mark.skipif(build._compiler() is None, reason="no C compiler (cc) on this machine")


def long(tag: float = 0.0) -> casadi.Function:
    """A function of some thousand instructions, another for every tag."""
    x, y = casadi.SX.sym("x", 6), casadi.SX.sym("y", 3)
    z = casadi.vertcat(x, y)
    for i in range(120):
        z = (
            casadi.sin(z)
            + 0.1 * z[[*range(1, 9), 0]] * casadi.sqrt(1 + z**2)
            + casadi.if_else(z > 1, z / (2 + i), 0.1 * tag)
        )
    return casadi.Function("many", [x, y], [z, casadi.densify(z[:3] @ y.T)])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build._compiler.cache_clear()
    yield tmp_path / "sealegs"
    build._compiler.cache_clear()


def libraries(folder) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


@needs_compiler
def test_the_same_bits(folder):
    function, rng = long(), np.random.default_rng(0)
    quick = compiled(function)
    assert quick is not function and len(libraries(folder)) == 1
    for scale in (0.1, 1.0, 30.0):
        x, y = scale * rng.standard_normal((50, 6)), scale * rng.standard_normal((50, 3))
        for i in range(50):
            for a, b in zip(function(x[i], y[i]), quick(x[i], y[i]), strict=True):
                assert np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


@needs_compiler
def test_over_many_points_and_in_numpy():
    rng = np.random.default_rng(1)
    quick, slow = Symbolic(long(1.0)), Symbolic(long(1.0))
    slow.function = long(1.0)
    assert quick.function.class_name() != slow.function.class_name()
    for n in (1, 7):
        given = rng.standard_normal((n, 6)), rng.standard_normal((n, 3))
        for a, b in zip(quick(*given), slow(*given), strict=True):
            assert np.isfinite(a).all()
            assert a.shape == b.shape and np.array_equal(a, b)


@needs_compiler
def test_what_was_compiled_is_found_again(folder, monkeypatch):
    compiled(long(2.0))
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert compiled(long(2.0)).class_name() != long(2.0).class_name()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent))
    compiled(long(3.0))  # another function is another file
    assert len(libraries(folder)) == 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_short_function_is_not_worth_it(folder):
    x = casadi.SX.sym("x")
    f = casadi.Function("f", [x], [casadi.sin(x)])
    assert compiled(f) is f and not libraries(folder)


@pytest.mark.parametrize("what", ["absent", "broken", "fails", "unwritable", "open to others"])
def test_where_it_cannot_be_compiled_the_virtual_machine_evaluates_it(what, folder, tmp_path, monkeypatch):
    cc = tmp_path / "cc"
    if what == "absent":
        monkeypatch.setenv("CC", str(cc))
    elif what in ("broken", "fails"):
        cc.write_text(
            '#!/bin/sh\n[ "$1" = --version ] && ' + ("exit 1" if what == "broken" else "exit 0") + "\nexit 1\n"
        )
        cc.chmod(0o755)
        monkeypatch.setenv("CC", str(cc))
    elif what == "unwritable":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    f = long(4.0)
    assert compiled(f) is f
    assert folder.is_file() or not libraries(folder)
