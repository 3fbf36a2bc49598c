"""Rules for the arguments of calls, with the error texts of InfluxDB 1.x: picks, averages, forecasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dsdbd.errors import RequestError
from dsdbd.influxql import ast
from dsdbd.influxql.durations import format_duration
from dsdbd.influxql.format import to_text

PICKS = frozenset({"top", "bottom"})
FORECASTS = frozenset({"holt_winters", "holt_winters_with_fit"})
_AVERAGES = frozenset(
    {
        "exponential_moving_average",
        "double_exponential_moving_average",
        "triple_exponential_moving_average",
        "relative_strength_index",
        "triple_exponential_derivative",
    }
)
_KAUFMANS = frozenset({"kaufmans_efficiency_ratio", "kaufmans_adaptive_moving_average"})
INDICATORS = _AVERAGES | _KAUFMANS | {"chande_momentum_oscillator"}
COLUMNS = frozenset({ast.VarRef, ast.Wildcard, ast.RegexLiteral})


@dataclass
class Found:
    """What the checks so far have met.

    ``functions``: calls, those inside others included; ``picking``: the name of a ``top`` or ``bottom`` among them.
    ``inherited``: the interval is that of the statement around a subquery.
    """

    has_interval: bool
    limit: int = 0
    inherited: bool = False
    calls: int = 0
    functions: int = 0
    picking: str = ""
    has_distinct: bool = False
    has_plain_fields: bool = False
    only_selectors: bool = True


def expect_count(name: str, got: int, least: int, most: int | None = None) -> None:
    """Raise RequestError for another number of arguments."""
    if most is None and got != least:
        raise RequestError(f"invalid number of arguments for {name}, expected {least}, got {got}")
    if most is not None and not least <= got <= most:
        raise RequestError(
            f"invalid number of arguments for {name}, expected at least {least} but no more than {most}, got {got}"
        )


def check_symbol(name: str, arg: ast.Expr, found: Found) -> None:
    """Raise RequestError for an argument that is no field and no wildcard; the latter stands for many calls."""
    if type(arg) not in COLUMNS:
        raise RequestError(f"expected field argument in {name}()")
    if type(arg) is not ast.VarRef:
        found.only_selectors = False


def check_picks(call: ast.Call, found: Found) -> None:
    """Rules of ``top`` and ``bottom``."""
    name, args = call.name, call.args
    if found.picking:
        raise RequestError(f"selector function {found.picking}() cannot be combined with other functions")
    if len(args) < 2:
        raise RequestError(f"invalid number of arguments for {name}, expected at least 2, got {len(args)}")
    last = args[-1]
    if not isinstance(last, ast.IntegerLiteral):
        raise RequestError(f"expected integer as last argument in {name}(), found {to_text(last)}")
    if last.value <= 0:
        raise RequestError(f"limit ({last.value}) in {name} function must be at least 1")
    if 0 < found.limit < last.value:
        raise RequestError(
            f"limit ({last.value}) in {name} function can not be larger than the LIMIT ({found.limit}) "
            "in the select statement"
        )
    if not isinstance(args[0], ast.VarRef):
        raise RequestError(f"expected first argument to be a field in {name}(), found {to_text(args[0])}")
    for arg in args[1:-1]:
        if not isinstance(arg, ast.VarRef):
            raise RequestError(f"only fields or tags are allowed in {name}(), found {to_text(arg)}")
        found.has_plain_fields = True
    found.picking = name


def check_sample(args: tuple[ast.Expr, ...], found: Found) -> None:
    """Rules of ``sample``."""
    expect_count("sample", len(args), 2)
    size = args[1]
    if not isinstance(size, ast.IntegerLiteral):
        raise RequestError("expected integer argument in sample()")
    if size.value <= 0:
        raise RequestError(f"sample window must be greater than 1, got {size.value}")
    check_symbol("sample", args[0], found)


def check_integral(args: tuple[ast.Expr, ...], found: Found) -> None:
    """Rules of ``integral``."""
    expect_count("integral", len(args), 1, 2)
    if len(args) == 2:
        unit = args[1]
        if not isinstance(unit, ast.DurationLiteral):
            raise RequestError("second argument must be a duration")
        if unit.value_ns <= 0:
            raise RequestError(f"duration argument must be positive, got {format_duration(unit.value_ns)}")
    found.only_selectors = False
    check_symbol("integral", args[0], found)


def check_forecast(call: ast.Call, found: Found, check_inner: Callable[[ast.Expr], None]) -> None:
    """Rules of ``holt_winters`` and ``holt_winters_with_fit``; ``check_inner`` checks the aggregate."""
    name, args = call.name, call.args
    expect_count(name, len(args), 3)
    count, season = args[1], args[2]
    if not isinstance(count, ast.IntegerLiteral):
        raise RequestError(f"expected integer argument as second arg in {name}")
    if count.value <= 0:
        raise RequestError(f"second arg to {name} must be greater than 0, got {count.value}")
    if not isinstance(season, ast.IntegerLiteral):
        raise RequestError(f"expected integer argument as third arg in {name}")
    if season.value < 0:
        raise RequestError(f"third arg to {name} cannot be negative, got {season.value}")
    found.only_selectors = False
    if not isinstance(args[0], ast.Call):
        raise RequestError(f"must use aggregate function with {name}")
    if not found.has_interval:
        raise RequestError(f"{name} aggregate requires a GROUP BY interval")
    check_inner(args[0])


def check_indicator(call: ast.Call, found: Found) -> None:
    """Rules for the numbers and words of moving averages and of indicators made of them."""
    name, args = call.name, call.args
    expect_count(name, len(args), 2, 3 if name in _KAUFMANS else 4)
    period = args[1]
    if not isinstance(period, ast.IntegerLiteral):
        raise RequestError(f"{name} period must be an integer")
    if period.value < 1:
        raise RequestError(f"{name} period must be greater than or equal to 1")
    if len(args) > 2:
        hold = args[2]
        if not isinstance(hold, ast.IntegerLiteral):
            raise RequestError(f"{name} hold period must be an integer")
        least = 1 if name == "triple_exponential_derivative" else 0
        if hold.value < least and hold.value != -1:
            raise RequestError(f"{name} hold period must be greater than or equal to {least}")
    if len(args) > 3:
        words = ("exponential", "simple") if name in _AVERAGES else ("none", "exponential", "simple")
        if not isinstance(args[3], ast.StringLiteral):
            raise RequestError(f"{name} warmup type must be a string")
        if args[3].value not in words:
            raise RequestError(f"{name} warmup type must be one of: " + " ".join(f"'{word}'" for word in words))
    smoothed = len(args) > 3 and args[3] != ast.StringLiteral("none")
    if name == "chande_momentum_oscillator" and period.value == 1 and not smoothed:
        raise RequestError(f"{name} period must be greater than 1 without a warmup type")
    found.only_selectors = False
