"""ROS parameters read off frozen dataclasses: names are the fields' paths (`controller.planner.samples`), defaults the fields'.

ROS has no None: an optional number is 0 where there is none. YAML has its own idea of a value's type: a whole number does for any number, and a
number for the text that it is written as. Nothing here needs ROS.
"""

import math
import types
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from controller.config import UsageError

Value = str | int | float | bool
C = TypeVar("C")


def flatten(config: Any, prefix: str = "") -> dict[str, Value]:
    """A frozen dataclass, nested -> values by parameter name."""
    found: dict[str, Value] = {}
    for field in fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if is_dataclass(value):
            found |= flatten(value, f"{name}.")
        else:
            found[name] = 0.0 if value is None else value
    return found


def update(config: C, values: dict[str, Any]) -> C:
    """The config with those parameters changed. Raises UsageError naming the parameter, the value and the valid ones."""
    for name, value in values.items():
        config = _set(config, name.split("."), value, name)
    return config


def _set(config: Any, path: list[str], value: Any, name: str) -> Any:
    hints = get_type_hints(type(config))
    if path[0] not in hints:
        raise UsageError(f"unknown parameter {name!r}; valid: {', '.join(flatten(config))}")
    if len(path) > 1:
        return replace(config, **{path[0]: _set(getattr(config, path[0]), path[1:], value, name)})
    return replace(config, **{path[0]: _checked(hints[path[0]], value, name)})


def _checked(hint: Any, value: Any, name: str) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{name} is {value!r}; valid: {', '.join(map(str, get_args(hint)))}")
        return value
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = (h for h in get_args(hint) if h is not type(None))
        return None if type(value) in (int, float) and value == 0 else _checked(inner, value, name)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise UsageError(f"{name} is {value}; valid: a finite number, 0 or more")
        return float(value)
    if hint is str and type(value) in (int, float):
        return str(value)
    if hint is not type(value):
        raise UsageError(f"{name} is {value!r}; valid: a value of type {hint.__name__}")
    if hint is int and value < 0:
        raise UsageError(f"{name} is {value}; valid: 0 or more")
    return value
