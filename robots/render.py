"""Pictures of a MuJoCo robot. OpenGL is looked for where it is needed, and its absence is one sentence."""

import itertools
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import mujoco
import numpy as np

BROKEN = (0.85, 0.2, 0.15, 1.0)


class Line(NamedTuple):
    """Drawn into a picture, straight from point to point."""

    points: np.ndarray  # (n, 3) [m]
    rgba: tuple[float, float, float, float]
    width: float  # [pixels]


class RenderError(RuntimeError):
    """No OpenGL. The message names the package that would give it."""


class Camera:
    """Follows the robot from the side, or looks at one place. A context manager: OpenGL contexts must be closed."""

    def __init__(
        self, model: mujoco.MjModel, width: int = 480, height: int = 360, place: tuple[float, float, float] | None = None,
        distance: float = 6.0, azimuth: float = 90.0,
    ):  # fmt: skip
        """place: what it looks at [m]; None: the robot. distance [m] from there, azimuth [degrees], of the view from world x to y."""
        self._model = model
        self._data = mujoco.MjData(model)
        self._rgba = model.geom_rgba.copy()
        self._material = model.geom_matid.copy()
        # MuJoCo refuses pictures larger than its off-screen buffer.
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as e:  # each OpenGL loader fails in its own way
            raise RenderError(
                f"no video: OpenGL was not found ({type(e).__name__}, MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')}); "
                "the Debian package libegl1 (set MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa) would give it"
            ) from e
        self._view = mujoco.MjvCamera()
        self._view.distance, self._view.elevation, self._view.azimuth = distance, -20.0, azimuth
        self._place = place

    def draw(self, qpos: np.ndarray, broken: Iterable[int] = (), lines: Sequence[Line] = ()) -> np.ndarray:
        """(nq,) -> (height, width, 3) uint8; geoms in `broken` are red."""
        self._model.geom_rgba[:] = self._rgba
        self._model.geom_matid[:] = self._material
        for geom in broken:
            self._model.geom_matid[geom] = -1
            self._model.geom_rgba[geom] = BROKEN
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)
        self._view.lookat[:] = self._place or (qpos[0], qpos[1], 0.4)
        self._renderer.update_scene(self._data, self._view)
        for line in lines:
            self._add(line)
        return self._renderer.render()

    def _add(self, line: Line) -> None:
        scene = self._renderer.scene
        kind = mujoco.mjtGeom.mjGEOM_LINE  # without a solid's cost, which without a GPU is the picture's
        for a, b in itertools.pairwise(np.asarray(line.points, float)):
            if scene.ngeom == scene.maxgeom:
                return
            geom = scene.geoms[scene.ngeom]
            mujoco.mjv_initGeom(geom, kind, np.zeros(3), np.zeros(3), np.zeros(9), np.array(line.rgba, np.float32))
            mujoco.mjv_connector(geom, kind, line.width, a, b)
            scene.ngeom += 1

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self._renderer.close()
        self._model.geom_rgba[:] = self._rgba
        self._model.geom_matid[:] = self._material
