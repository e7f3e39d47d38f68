"""What moves. Importing it chooses how MuJoCo draws without a screen, because MuJoCo reads that once, when it is imported, and cannot be
imported at all where it is told to use a library that is not there."""

import ctypes
import os


def _choose_opengl() -> None:
    if "MUJOCO_GL" in os.environ or os.environ.get("DISPLAY"):
        return
    for name, library in (("egl", "libEGL.so.1"), ("osmesa", "libOSMesa.so.8")):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        os.environ["MUJOCO_GL"] = name
        return


_choose_opengl()
