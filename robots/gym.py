"""The ant as a Gymnasium environment, `sealegs/Ant-v0`.

    import robots.gym                                                     # registers
    env = gymnasium.make("sealegs/Ant-v0", condition="leg:3@100")         # leg 3 dies at step 100
    env.reset(seed=0, options={"condition": "reverse:2"})                 # another condition, this episode only

Without the import: gymnasium.make("robots.gym:sealegs/Ant-v0"). An installed entry point cannot do it: Gymnasium
dropped plugins in 1.0.
"""

from contextlib import ExitStack
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.spaces import Box

from robots import ant, falls
from robots.ant import Ant
from robots.condition import Condition, parse
from robots.render import Camera

ID = "sealegs/Ant-v0"
MAX_STEPS = 500


class AntEnv(gymnasium.Env):
    """One ant.

    observation  (31,) float64, the state of robots.space.FloatingBase: m, rad, m/s, rad/s
    action       (8,) float32 in [-1, 1], motor torque as a fraction of the gear
    reward       mean forward velocity over the step [m/s]
    terminated   never: a robot on its back goes on, and its falls are counted
    truncated    after 500 steps, by registration
    info         x (world position, m), falls (this episode), condition (the episode's schedule, as text), since (onset
                 of the stage of it that was in force)

    An onset @STEP counts the actions of the episode from 0: action number STEP is the first under the new condition.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, condition: str = "healthy", render_mode: str | None = None, width: int = 480, height: int = 480):
        """condition: see robots.condition; width, height of a rendered frame [pixels].

        Raises ConditionError, a ValueError, on a condition it cannot understand; ValueError on another render mode.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; valid: None, 'rgb_array'")
        self.observation_space = Box(-np.inf, np.inf, (Ant.space.n_state,), np.float64)
        self.action_space = Box(-1.0, 1.0, (Ant.space.n_action,), np.float32)
        self.render_mode = render_mode
        self.robot = Ant(threads=1)
        self._default = self._schedule = parse(str(condition))
        self._falls = falls.start(1)
        self._step = 0
        self._size = (height, width)
        self._camera: tuple[Condition, Camera] | None = None
        self._opened = ExitStack()
        self._closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """options: {"condition": text} replaces the constructor's for this episode. A seed starts where Ant.reset does.

        Raises ValueError on another option, ConditionError on a condition that cannot be understood.
        """
        self._open("reset")
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"condition"}:
            raise ValueError(f"unknown reset option {sorted(unknown)[0]!r}; valid: 'condition'")
        self._schedule = parse(str(options["condition"])) if "condition" in options else self._default
        self._falls, self._step = falls.start(1), 0
        start = int(self.np_random.integers(2**31)) if seed is None else seed
        s = self.robot.reset([self._schedule.at(0)], [start])
        return s[0], self._info(s[0])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Raises ValueError on an action of another shape, not finite or out of bounds; the robot then stays put. ResetNeeded before the first
        reset, ClosedEnvironmentError after close."""
        self._open("step")
        if not self.robot.conditions:
            raise ResetNeeded("step was called before reset; call reset first")
        action = _checked(action)
        self.robot.conditions = [self._schedule.at(self._step)]
        s = self.robot.state()
        s_next = self.robot.step(action[None])
        self._step += 1
        self._falls = falls.count(self._falls, Ant.upright(s_next))
        return s_next[0], float(Ant.score(s, s_next)[0]), False, False, self._info(s_next[0])

    def _info(self, s: np.ndarray) -> dict[str, Any]:
        since = max((onset for onset in self._schedule.onsets if onset < self._step), default=0)
        return {
            "x": float(s[0]), "falls": int(self._falls.falls[0]), "condition": self._schedule.text, "since": since,
        }  # fmt: skip

    def render(self) -> np.ndarray | None:
        """-> (height, width, 3) uint8, or None without a render mode. Raises RenderError where OpenGL is missing."""
        if self.render_mode is None:
            return None
        self._open("render")
        if not self.robot.conditions:
            raise ResetNeeded("render was called before reset; call reset first")
        condition = self.robot.conditions[0]
        if self._camera is None or self._camera[0] != condition:
            self._opened.close()
            self._camera = (condition, self._opened.enter_context(self._view(condition)))
        qpos, _ = self.robot.physics.split(self.robot.raw[0])
        return self._camera[1].draw(qpos)

    def _view(self, condition: Condition) -> Camera:
        height, width = self._size
        model = ant.load()
        ant.alter(model, condition)  # a shortened leg is drawn short
        buffer = model.vis.global_
        buffer.offheight, buffer.offwidth = max(height, buffer.offheight), max(width, buffer.offwidth)
        return Camera(model, width, height)

    def _open(self, what: str) -> None:
        if self._closed:
            raise ClosedEnvironmentError(f"{what} was called after close; make another environment")

    def close(self) -> None:
        self._closed = True
        self._opened.close()
        self._camera = None
        self.robot.physics.close()


def _checked(action: np.ndarray) -> np.ndarray:
    """-> (8,) float64. Raises ValueError."""
    n = Ant.space.n_action
    valid = f"valid: {n} finite numbers in [-1, 1]"
    try:
        a = np.asarray(action, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"action is {action!r}; {valid}") from None
    if a.shape != (n,):
        raise ValueError(f"action has shape {a.shape}, wanted ({n},); {valid}")
    good = np.isfinite(a) & (np.abs(a) <= 1)
    if not good.all():
        i = int(np.argmin(good))
        raise ValueError(f"action[{i}] is {a[i]:g}, {'out of bounds' if np.isfinite(a[i]) else 'not finite'}; {valid}")
    return a


def register() -> None:
    """Make `sealegs/Ant-v0` known to Gymnasium. Calling it again changes nothing."""
    if ID not in gymnasium.registry:
        gymnasium.register(ID, entry_point="robots.gym:AntEnv", max_episode_steps=MAX_STEPS)


register()
