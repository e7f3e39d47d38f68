"""The Gymnasium environment: its interface, onsets in mid-episode, falls, actions it must refuse, and what it draws."""

import os
import subprocess
import sys
import warnings
from ctypes.util import find_library

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.env_checker import check_env

import robots.gym
from robots import falls
from robots.ant import Ant
from robots.condition import HEALTHY, ConditionError, parse
from robots.gym import MAX_STEPS, AntEnv
from robots.render import RenderError


def actions(steps: int) -> np.ndarray:
    """(t, 8) float32 in [-1, 1]."""
    return np.random.default_rng(0).uniform(-1, 1, (steps, 8)).astype(np.float32)


def play(env: gymnasium.Env, steps: int) -> np.ndarray:
    """-> observations (t, 31)."""
    return np.stack([env.step(action)[0] for action in actions(steps)])


def test_gymnasiums_own_checks_pass():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(gymnasium.make("sealegs/Ant-v0").unwrapped, skip_render_check=True)
    # It wishes for bounds on the observation, which a position in the world has not.
    assert all("A Box observation space" in str(w.message) for w in caught), [str(w.message) for w in caught]


def test_the_id_works_without_the_import_and_registering_twice_is_silent():
    env = gymnasium.make("robots.gym:sealegs/Ant-v0", condition="leg:3@100")
    assert isinstance(env.unwrapped, AntEnv)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        robots.gym.register()


def test_an_episode_is_truncated_and_never_terminated():
    env = gymnasium.make("sealegs/Ant-v0")
    env.reset(seed=0)
    ends = [env.step(np.zeros(8, np.float32))[2:4] for _ in range(MAX_STEPS)]
    assert ends == [(False, False)] * (MAX_STEPS - 1) + [(False, True)]


def test_it_is_the_ant():
    env, robot = AntEnv(condition="reverse:2"), Ant(threads=1)
    observation, info = env.reset(seed=3)
    s = robot.reset([parse("reverse:2").at(0)], [3])
    np.testing.assert_array_equal(observation, s[0])
    assert info["x"] == s[0, 0]
    for action in actions(20):
        observation, reward, *_, info = env.step(action)
        s_next = robot.step(action[None])
        np.testing.assert_array_equal(observation, s_next[0])
        assert reward == pytest.approx((s_next[0, 0] - s[0, 0]) / 0.05)
        assert info["x"] == s_next[0, 0]
        s = s_next


def test_without_a_seed_every_episode_starts_elsewhere_but_repeatably():
    def starts() -> list[np.ndarray]:
        env = AntEnv()
        return [env.reset(seed=0)[0], env.reset()[0], env.reset()[0]]

    first = starts()
    np.testing.assert_array_equal(first, starts())
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[1], first[2])


def test_a_leg_dies_in_mid_episode():
    broken, healthy = AntEnv(condition="leg:3@10"), AntEnv()
    np.testing.assert_array_equal(broken.reset(seed=0)[0], healthy.reset(seed=0)[0])
    ours, theirs = play(broken, 20), play(healthy, 20)
    np.testing.assert_array_equal(ours[:10], theirs[:10])  # actions 0 to 9
    assert np.abs(ours[10] - theirs[10]).max() > 1e-3  # action 10 is the first without the leg


def test_a_reset_option_holds_for_its_episode_alone():
    env = AntEnv(condition="leg:1@2")
    _, info = env.reset(seed=0, options={"condition": "leg:3@5+healthy@8"})
    assert (info["condition"], info["since"]) == ("leg:3@5+healthy@8", 0)
    since = [env.step(action)[4]["since"] for action in actions(10)]
    assert since == [0] * 5 + [5] * 3 + [8] * 2
    assert env.robot.conditions == [HEALTHY]
    _, info = env.reset(seed=0)
    assert info["condition"] == "leg:1@2"


@pytest.mark.parametrize(
    "bad, named",
    [
        (np.full(8, 1.5), r"action\[0\] is 1.5, out of bounds"),
        (np.array([0, 0, 0, -1.01, 0, 0, 0, 0]), r"action\[3\] is -1.01, out of bounds"),
        (np.array([0] * 7 + [np.nan]), r"action\[7\] is nan, not finite"),
        (np.array([0] * 6 + [np.inf, 0]), r"action\[6\] is inf, not finite"),
        (np.zeros(7), r"shape \(7,\), wanted \(8,\)"),
        (np.zeros((1, 8)), r"shape \(1, 8\), wanted \(8,\)"),
        (0.5, r"shape \(\), wanted \(8,\)"),
        (None, "shape|None"),
        ("forward", "'forward'"),
    ],
)
def test_a_bad_action_is_refused_and_moves_nothing(bad, named):
    env = AntEnv()
    env.reset(seed=0)
    before = env.robot.raw.copy()
    with pytest.raises(ValueError, match=named) as caught:
        env.step(bad)
    assert "valid: 8 finite numbers in [-1, 1]" in str(caught.value)
    np.testing.assert_array_equal(env.robot.raw, before)
    env.step(np.ones(8))  # the bounds themselves are allowed
    env.step(-np.ones(8))


def test_a_bad_condition_option_or_render_mode_is_refused():
    with pytest.raises(ConditionError, match="leg:9"):
        AntEnv(condition="leg:9")
    with pytest.raises(ConditionError, match="brkoen"):
        AntEnv().reset(options={"condition": "brkoen"})
    with pytest.raises(ValueError, match="'conditoin'; valid: 'condition'"):
        AntEnv().reset(options={"conditoin": "leg:3"})
    with pytest.raises(ValueError, match="'human'"):
        AntEnv(render_mode="human")
    with pytest.raises(ResetNeeded):
        AntEnv().step(np.zeros(8))


def test_falls_are_counted_once_a_tumble():
    # Columns: two tumbles; one long one that rocks; down from the start; a sensor that fails; never quite down.
    upright = np.array([
        [0.9, -0.1, -0.9, 0.6, 0.4, -0.2, 0.9],
        [0.9, -0.1, 0.4, -0.5, 0.3, -0.1, 0.4],
        [-0.9, -0.9, -0.9, -0.9, 0.9, 0.9, 0.9],
        [0.9, np.nan, -0.1, np.nan, np.nan, -0.1, np.nan],
        [0.9, 0.1, 0.0, 0.1, 0.9, 0.1, 0.0],
    ])  # fmt: skip
    state, history = falls.start(5), []
    for now in upright.T:
        state = falls.count(state, now)
        history.append(state.falls)
    np.testing.assert_array_equal(state.falls, [2, 1, 1, 1, 0])
    np.testing.assert_array_equal(np.array(history)[:, 0], [0, 1, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(state.down, [False, True, False, True, False])


def test_an_ant_put_on_its_back_has_fallen_once():
    env = AntEnv()
    env.reset(seed=0)
    env.robot.raw[0, 4:8] = [0, 1, 0, 0]  # half a turn about x
    infos = [env.step(np.zeros(8))[4] for _ in range(5)]
    assert [info["falls"] for info in infos] == [1] * 5
    assert env.reset(seed=0)[1]["falls"] == 0


def test_after_close_it_says_so():
    env = AntEnv(render_mode="rgb_array")
    env.reset(seed=0)
    env.close()
    for what, call in (("step", lambda: env.step(np.zeros(8))), ("reset", env.reset), ("render", env.render)):
        with pytest.raises(ClosedEnvironmentError, match=f"{what} was called after close; make another environment"):
            call()
    env.close()


def test_without_opengl_the_error_names_the_packages(monkeypatch):
    def missing(*_):
        raise mujoco.FatalError("no OpenGL")

    monkeypatch.setattr(mujoco, "Renderer", missing)
    env = AntEnv(render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(RenderError, match=r"OpenGL.*libegl1.*MUJOCO_GL=egl.*libosmesa6"):
        env.render()
    assert AntEnv().render() is None


DRAW = """
import gymnasium, numpy, robots.gym
env = gymnasium.make("sealegs/Ant-v0", render_mode="rgb_array", width=700, height=120, condition="leg-short:3@1")
env.reset(seed=0)
frames = [env.render(), env.render(), (env.step(env.action_space.sample()), env.render())[1]]
env.step(env.action_space.sample())
frames.append(env.render())
assert all(f.shape == (120, 700, 3) and f.dtype == numpy.uint8 and f.std() > 10 for f in frames)
assert (frames[0] == frames[1]).all() and (frames[1] != frames[2]).any() and (frames[2] != frames[3]).any()
env.close()
env.close()
print("drawn")
"""


@pytest.mark.skipif(find_library("EGL") is None, reason="needs libEGL (Debian package libegl1)")
def test_it_draws():
    # In a process of its own: MuJoCo chooses its OpenGL when it is first imported.
    environment = {**os.environ, "MUJOCO_GL": "egl"}
    result = subprocess.run([sys.executable, "-c", DRAW], env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.strip().endswith("drawn"), result.stderr
