# PyBullet's bindings are compiled and ship no annotations.
from typing import Any

def __getattr__(name: str) -> Any: ...
