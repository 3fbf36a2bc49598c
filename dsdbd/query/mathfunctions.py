"""Functions of single values (``abs``, ``pow`` …), as InfluxDB 1.6 computes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsdbd.model.columns import Bools

ARGUMENT_COUNTS: dict[str, int] = {
    **dict.fromkeys(("abs", "sin", "cos", "tan", "asin", "acos", "atan", "exp", "ln", "log2", "log10"), 1),
    **dict.fromkeys(("sqrt", "ceil", "floor", "round"), 1),
    **dict.fromkeys(("log", "pow", "atan2"), 2),
}
"""Every function and how many arguments it takes."""

_KEEP_INTEGERS = frozenset({"abs", "ceil", "floor", "round"})
_UNARY: dict[str, Any] = {
    "abs": np.abs,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "exp": np.exp,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "ceil": np.ceil,
    "floor": np.floor,
}


def result_is_integer(name: str, *, integer_arguments: bool) -> bool:
    """Whether the function of whole numbers is a whole number."""
    return integer_arguments and name in _KEEP_INTEGERS


def apply(name: str, args: list[Any], integer_arguments: bool) -> tuple[Any, bool, Bools | None]:
    """Values (float64 or int64), whether they are whole numbers, and where they are defined (None: everywhere)."""
    is_integer = result_is_integer(name, integer_arguments=integer_arguments)
    if is_integer:
        return (np.abs(args[0]) if name == "abs" else args[0]), True, None
    floats = [np.asarray(arg, dtype=np.float64) for arg in args]
    with np.errstate(all="ignore"):
        if name == "pow":
            values = np.power(floats[0], floats[1])
        elif name == "log":
            values = np.log(floats[0]) / np.log(floats[1])
        elif name == "atan2":
            values = np.arctan2(floats[0], floats[1])
        elif name == "round":
            # Halves away from zero; adding 0.5 before truncating would round 0.49999999999999994 up.
            whole = np.trunc(floats[0])
            values = whole + np.where(np.abs(floats[0] - whole) >= 0.5, np.copysign(1.0, floats[0]), 0.0)
        else:
            values = _UNARY[name](floats[0])
    defined = ~np.isnan(values)
    return values, False, None if bool(np.all(defined)) else np.atleast_1d(defined)
