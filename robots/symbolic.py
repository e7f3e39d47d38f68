"""The tangent maps of robots.space.Flying in CasADi: `retract` and `local` of one state, as columns, tested equal to the torch ones."""

import casadi

TINY = 1e-24  # [rad^2]; keeps the derivatives finite at no rotation


def retract(s: casadi.SX, delta: casadi.SX) -> casadi.SX:
    """(n, 1), (n - 3, 1) -> (n, 1)."""
    p, f, u, rest = casadi.vertsplit(s, [0, 3, 6, 9, s.numel()])
    moved, turned, change = casadi.vertsplit(delta, [0, 3, 6, delta.numel()])
    angle = casadi.sqrt(casadi.sumsqr(turned) + TINY)
    axis, sin, cos = turned / angle, casadi.sin(angle), casadi.cos(angle)

    def turn(r: casadi.SX) -> casadi.SX:
        return cos * r - sin * casadi.cross(axis, r) + (1 - cos) * casadi.dot(axis, r) * axis

    return casadi.vertcat(p + rotation(s) @ moved, turn(f), turn(u), rest + change)


def local(s: casadi.SX, s_next: casadi.SX) -> casadi.SX:
    """(n, 1), (n, 1) -> (n - 3, 1). Rotations of less than pi."""
    rot, rot_next = rotation(s), rotation(s_next)
    turn = rot.T @ rot_next
    vee = casadi.vertcat(turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]) / 2
    sin = casadi.sqrt(casadi.sumsqr(vee) + TINY)
    cos = (casadi.trace(turn) - 1) / 2
    turned = casadi.atan2(sin, cos) / sin * vee
    return casadi.vertcat(rot.T @ (s_next[:3] - s[:3]), turned, s_next[9:] - s[9:])


def rotation(s: casadi.SX) -> casadi.SX:
    """(n, 1) -> (3, 3) body -> world. Its rows are the world axes in body coordinates."""
    f, u = s[3:6], s[6:9]
    return casadi.horzcat(f, casadi.cross(u, f), u).T
