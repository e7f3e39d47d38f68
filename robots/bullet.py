"""The PyBullet backend: each robot in a world of its own, so that one in a batch is identical to the same robot alone."""

import numpy as np
import pybullet

from robots.bodies import LOAD, QUATERNION, RATES, V_LOAD, V_VEHICLE, VEHICLE, radius
from robots.space import quaternion_to_rotation
from robots.vehicle import GRAVITY, Vehicle

XYZW = [1, 2, 3, 0]  # MuJoCo's quaternion in PyBullet's order


class BulletBodies:
    """robots.bodies.Bodies on PyBullet."""

    def __init__(self, vehicle: Vehicle, b: int):
        self._vehicle = vehicle
        self.qpos, self.qvel = np.zeros((b, 14)), np.zeros((b, 12))
        self.qpos[:, [3, 10]] = 1
        self._worlds = [pybullet.connect(pybullet.DIRECT) for _ in range(b)]
        self._ids = [self._build(world) for world in self._worlds]

    def _build(self, world: int) -> tuple[int, int]:
        """-> ids of vehicle and load."""
        pybullet.setTimeStep(1 / self._vehicle.inner_rate_hz, physicsClientId=world)
        pybullet.setGravity(0, 0, -GRAVITY, physicsClientId=world)
        plane = pybullet.createCollisionShape(pybullet.GEOM_PLANE, physicsClientId=world)
        ball = pybullet.createCollisionShape(pybullet.GEOM_SPHERE, radius=radius(self._vehicle), physicsClientId=world)
        pybullet.createMultiBody(0, plane, physicsClientId=world)
        vehicle, load = (pybullet.createMultiBody(self._vehicle.mass_kg, ball, physicsClientId=world) for _ in range(2))
        for body in (vehicle, load):
            # PyBullet would damp every motion by 4% a second.
            pybullet.changeDynamics(body, -1, linearDamping=0, angularDamping=0, physicsClientId=world)
        pybullet.setCollisionFilterPair(vehicle, load, -1, -1, 0, physicsClientId=world)
        return vehicle, load

    def place(self, i: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
        self.qpos[i], self.qvel[i] = qpos, qvel
        rot = quaternion_to_rotation(qpos.reshape(2, 7)[:, QUATERNION])
        for k, body in enumerate(self._ids[i]):
            pose, motion = qpos[7 * k : 7 * k + 7], qvel[6 * k : 6 * k + 6]
            pybullet.resetBasePositionAndOrientation(
                body, pose[:3].tolist(), pose[QUATERNION][XYZW].tolist(), physicsClientId=self._worlds[i]
            )
            pybullet.resetBaseVelocity(
                body, motion[:3].tolist(), (rot[k] @ motion[3:]).tolist(), physicsClientId=self._worlds[i]
            )

    def alter(self, i: int, inertia: float, load_mass: float) -> None:
        vehicle, load = self._ids[i]
        moments = [inertia * x for x in self._vehicle.inertia_kg_m2]
        pybullet.changeDynamics(vehicle, -1, localInertiaDiagonal=moments, physicsClientId=self._worlds[i])
        sphere = 0.4 * load_mass * radius(self._vehicle) ** 2
        pybullet.changeDynamics(
            load, -1, mass=load_mass, localInertiaDiagonal=[sphere] * 3, physicsClientId=self._worlds[i]
        )

    def step(self, force: np.ndarray, torque: np.ndarray, pull: np.ndarray) -> None:
        rates = np.empty((len(self._worlds), 3))
        forces, torques, pulls = force.tolist(), torque.tolist(), pull.tolist()
        at, at_load = self.qpos[:, VEHICLE].tolist(), self.qpos[:, LOAD].tolist()
        world_frame = pybullet.WORLD_FRAME
        for i, (world, (vehicle, load)) in enumerate(zip(self._worlds, self._ids, strict=True)):
            pybullet.applyExternalForce(vehicle, -1, forces[i], at[i], world_frame, world)
            pybullet.applyExternalTorque(vehicle, -1, torques[i], world_frame, world)
            pybullet.applyExternalForce(load, -1, pulls[i], at_load[i], world_frame, world)
            pybullet.stepSimulation(world)
            self.qpos[i, VEHICLE], quaternion = pybullet.getBasePositionAndOrientation(vehicle, world)
            self.qpos[i, 3:7] = quaternion[3], *quaternion[:3]
            self.qvel[i, V_VEHICLE], rates[i] = pybullet.getBaseVelocity(vehicle, world)
            # The load's rotation is nobody's business.
            self.qpos[i, LOAD] = pybullet.getBasePositionAndOrientation(load, world)[0]
            self.qvel[i, V_LOAD] = pybullet.getBaseVelocity(load, world)[0]
        rot = quaternion_to_rotation(self.qpos[:, QUATERNION])
        self.qvel[:, RATES] = (rates[:, None] @ rot)[:, 0]  # world -> body

    def close(self) -> None:
        for world in self._worlds:
            pybullet.disconnect(world)
        self._worlds = []
