"""What a quadrotor with its payload looks like, for the camera: coordinates as robots.bodies, whichever engine flew."""

import mujoco
import numpy as np

from robots.bodies import LOAD, VEHICLE
from robots.render import Camera, Line
from robots.vehicle import ROTOR_X, ROTOR_Y, Vehicle

SMALLEST = 0.12  # [m], a shorter arm than this is drawn this long, or nobody would see the vehicle
PLACE = (0.0, 0.0, 2.05)  # [m], what the camera looks at
ASKED, FLOWN, CABLE = (0.2, 0.75, 0.35, 0.7), (1.0, 0.7, 0.15, 0.9), (0.95, 0.95, 0.95, 1.0)

VIEW = """
<mujoco model="quadrotor">
  <visual>
    <quality shadowsize="0" offsamples="2" numslices="16" numstacks="12"/>
    <headlight ambient="0.45 0.45 0.45" diffuse="0.5 0.5 0.5"/>
    <global offwidth="{width}" offheight="{height}"/>
  </visual>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1="0.42 0.52 0.62" rgb2="0.12 0.15 0.2" width="64" height="384"/>
    <texture name="floor" type="2d" builtin="checker" rgb1="0.26 0.28 0.31" rgb2="0.33 0.35 0.38" width="256" height="256"/>
    <material name="floor" texture="floor" texrepeat="20 20"/>
  </asset>
  <worldbody>
    <light pos="2 -2 8" dir="-0.25 0.25 -1" directional="true"/>
    <geom type="plane" size="20 20 1" material="floor"/>
    <body>
      <freejoint/>
      <geom type="box" size="{body} {body} {thin}" rgba="0.15 0.16 0.18 1"/>
      <geom type="sphere" pos="{body} 0 0" size="{thin}" rgba="0.95 0.3 0.2 1"/>
      {rotors}
    </body>
    <body>
      <freejoint/>
      <geom name="load" type="sphere" size="{load}" rgba="0.95 0.75 0.2 1"/>
    </body>
  </worldbody>
</mujoco>
"""
ROTOR = """<geom type="capsule" fromto="0 0 0 {x} {y} 0" size="{bar}" rgba="0.2 0.21 0.24 1"/>
      <geom type="cylinder" pos="{x} {y} {thin}" size="{disc} {bar}" rgba="0.75 0.8 0.9 0.6"/>"""


class View:
    """Draws states of one vehicle. A context manager, as the camera is."""

    def __init__(self, vehicle: Vehicle, width: int = 480, height: int = 400):
        """Raises robots.render.RenderError where there is no OpenGL."""
        arm = max(vehicle.arm_m, SMALLEST)
        sizes = {"bar": 0.05 * arm, "thin": 0.15 * arm, "disc": 0.5 * arm}
        rotors = "\n      ".join(
            ROTOR.format(x=arm * x, y=arm * y, **sizes) for x, y in zip(ROTOR_X, ROTOR_Y, strict=True)
        )
        model = mujoco.MjModel.from_xml_string(
            VIEW.format(width=width, height=height, body=0.3 * arm, load=0.3 * arm, rotors=rotors, thin=sizes["thin"])
        )
        self._camera = Camera(model, width, height, PLACE, distance=3.9, azimuth=75.0)

    def draw(
        self,
        position: np.ndarray,
        rotation: np.ndarray,
        load: np.ndarray | None,
        hooked: bool,
        asked: np.ndarray,
        flown: np.ndarray,
    ) -> np.ndarray:
        """position (3,) [m] and rotation (3, 3), body -> world, of the vehicle; load (3,) or None for no payload to be seen; asked and
        flown (n, 3): the reference path and the newest part of the path flown -> (height, width, 3) uint8."""
        qpos = np.zeros(14)
        qpos[VEHICLE] = position
        mujoco.mju_mat2Quat(qpos[3:7], rotation.ravel())
        qpos[LOAD] = (0, 0, -5) if load is None else load  # below the ground: out of sight
        qpos[10] = 1
        lines = [Line(asked, ASKED, 2.0), Line(flown, FLOWN, 3.0)]
        if hooked and load is not None:
            lines.append(Line(np.stack((position, load)), CABLE, 2.0))
        return self._camera.draw(qpos, lines=lines)

    def __enter__(self) -> "View":
        self._camera.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._camera.__exit__()
