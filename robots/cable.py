"""A massless inextensible cable between two centres of mass: it pulls, it never pushes, and it is never longer than L.

Over one period dt of semi-implicit Euler, which both engines use for translation (v' = v + dt a, p' = p + dt v'), the pull T along
the unit vector q from vehicle to load moves the end of d = p_load - p_vehicle by -s q with s = dt^2 T (1/m_load + 1/m_vehicle). The
pull is the least that leaves |d'| = |d_free - s q| <= L: a quadratic in s, solved here in closed form. This is SHAKE (Ryckaert,
Ciccotti, Berendsen 1977, J. Comput. Phys. 23) with one constraint that may go slack. It adds no stiffness, so the period need not
resolve a spring, and no damping while taut; a cable that snaps taut takes the velocity along it away, as an inelastic impact does.
inner.c has it once more.
"""

import numpy as np


def tension(
    apart: np.ndarray, apart_free: np.ndarray, length: np.ndarray, reduced_mass: np.ndarray, dt: float
) -> np.ndarray:
    """apart (b, 3) load minus vehicle position [m]; apart_free (b, 3) the same one period later without the cable; length (b,) [m];
    reduced_mass (b,) 1 / (1/m_load + 1/m_vehicle) [kg]; dt [s] -> force on the load (b, 3) [N]; on the vehicle its negative."""
    q = apart / np.maximum(np.linalg.norm(apart, axis=1), 1e-9)[:, None]
    along = (q * apart_free).sum(1)
    excess = (apart_free**2).sum(1) - length**2  # > 0: the free end is beyond the cable
    # Where the pull cannot shorten enough (the load shot sideways by more than L in one period) the nearest it can.
    root = np.sqrt(np.maximum(along**2 - excess, 0))
    shift = np.maximum(along - root, 0)  # slack where the free end is within the cable
    return -(reduced_mass * shift / dt**2)[:, None] * q
