"""Random statements over the dataset: the same seed gives the same statements. Most of them have an answer."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

MINUTE_S = 60


@dataclass(frozen=True)
class Shape:
    """A measurement as the generator knows it: fields by kind, tags with values, and the seconds its points span."""

    name: str
    floats: tuple[str, ...]
    integers: tuple[str, ...]
    strings: tuple[str, ...] = ()
    booleans: tuple[str, ...] = ()
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    span_s: tuple[int, int] = (0, 600)

    @property
    def numbers(self) -> tuple[str, ...]:
        return self.floats + self.integers

    @property
    def fields(self) -> tuple[str, ...]:
        return self.numbers + self.strings + self.booleans


HOSTS = ("a", "b", "c", "zz")
SHAPES = (
    Shape("cpu", ("f",), ("i",), ("s",), ("b",), {"host": HOSTS, "region": ("eu", "us", "")}),
    Shape("sys", ("load",), ("jobs",), ("state",), ("ok",), {"host": ("h1", "h2"), "rack": ("r1", "")}, (0, 3600)),
    Shape("plain", ("f",), (), span_s=(0, 60)),
    Shape("seq", ("f",), ("v",), tags={"k": ("x",)}, span_s=(0, 1920)),
    Shape("steps", ("g",), ("n",), tags={"k": ("x", "y")}, span_s=(0, 320)),
    Shape("neg", ("f",), ("i",), tags={"k": ("x", "y")}, span_s=(-9000, 0)),
    Shape("mem", ("f",), ("used",), ("note",), tags={"host": ("a", "z", "")}, span_s=(0, 420)),
    Shape("dup", ("w",), ("v",), ("z",), tags={"k": ("x",)}, span_s=(0, 10)),
)
AGGREGATES = ("count", "sum", "mean", "min", "max", "first", "last", "median", "spread", "stddev")
SELECTORS = ("min", "max", "first", "last")
SEQUENCES = ("difference", "non_negative_difference", "derivative", "cumulative_sum", "elapsed")
VALUES = ("abs", "ceil", "floor", "round", "sin", "cos", "tan", "atan")
COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">=", "=~", "!~"})
FILLS = ("", "", "", "fill(null)", "fill(none)", "fill(0)", "fill(-2)", "fill(previous)", "fill(linear)")


@dataclass
class Generator:
    """Draws statements. ``nested``: also statements within statements."""

    rng: random.Random
    nested: bool = True

    def statement(self) -> str:
        kinds: list[tuple[int, Callable[[], str]]] = [
            (26, self.raw),
            (28, self.aggregates),
            (12, self.selector),
            (12, self.sequence),
            (6, self.picks),
            (4, self.zoned),
            (10, self.show),
            (6, self.broken),
        ]
        if self.nested:
            kinds.append((6, self.subquery))
        makers = [maker for _, maker in kinds]
        return self.rng.choices(makers, [weight for weight, _ in kinds])[0]()

    # --- parts

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def shape(self) -> Shape:
        return self.rng.choice((SHAPES[0], *SHAPES))

    def number(self, shape: Shape, depth: int = 2) -> str:
        """An expression of fields that gives a number."""
        if depth == 0 or self.chance(0.5):
            return self.rng.choice(shape.numbers)
        roll = self.rng.random()
        if roll < 0.15:
            return f"{self.rng.choice(VALUES)}({self.number(shape, depth - 1)})"
        if roll < 0.25:
            return f"({self.number(shape, depth - 1)})"
        other = self.number(shape, depth - 1) if self.chance(0.4) else self.rng.choice(("2", "0.5", "3", "10", "1.25"))
        return f"{self.number(shape, depth - 1)} {self.rng.choice('+-*/')} {other}"

    def text_of(self, tag: str, shape: Shape) -> str:
        return f"'{self.rng.choice(shape.tags[tag])}'"

    def comparison(self, shape: Shape) -> str:
        """A condition on a tag or a field."""
        roll = self.rng.random()
        if shape.tags and roll < 0.4:
            tag = self.rng.choice(sorted(shape.tags))
            if self.chance(0.3):
                pattern = self.rng.choice(("a", "^.$", "a|b", "[^b]", "1$", "."))
                return f"{tag} {self.rng.choice(('=~', '!~'))} /{pattern}/"
            return f"{tag} {self.rng.choice(('=', '!='))} {self.text_of(tag, shape)}"
        if shape.strings and roll < 0.5:
            value = self.rng.choice(("up", "new", ""))
            return f"{self.rng.choice(shape.strings)} {self.rng.choice(('=', '!='))} '{value}'"
        if shape.booleans and roll < 0.6:
            return f"{self.rng.choice(shape.booleans)} = {self.rng.choice(('true', 'false'))}"
        operator = self.rng.choice(("<", "<=", ">", ">=", "=", "!="))
        return f"{self.rng.choice(shape.numbers)} {operator} {self.rng.choice(('0', '1', '2.5', '5', '-3', '12'))}"

    def condition(self, shape: Shape, depth: int = 2) -> str:
        if depth == 0 or self.chance(0.6):
            return self.comparison(shape)
        word = self.rng.choice(("and", "or"))
        inner = f"{self.condition(shape, depth - 1)} {word} {self.condition(shape, depth - 1)}"
        return f"({inner})"

    def range(self, shape: Shape, *, both: bool = False) -> list[str]:
        """Bounds in time, sometimes none or one."""
        low, high = shape.span_s
        length = high - low
        start = low + self.rng.choice((0, 0, length // 10, length // 3, -length // 4, 7))
        end = high - self.rng.choice((0, 0, length // 10, length // 4, -length // 3, 11))
        lower = f"time {self.rng.choice(('>=', '>=', '>'))} {start}s"
        upper = f"time {self.rng.choice(('<', '<', '<='))} {end}s"
        if both:
            return [lower, upper]
        return [bound for bound in (lower, upper) if self.chance(0.5)]

    def where(self, shape: Shape, *, both: bool = False) -> str:
        parts = self.range(shape, both=both)
        if self.chance(0.35):
            parts.append(self.condition(shape))
        return f" where {' and '.join(parts)}" if parts else ""

    def tags(self, shape: Shape) -> list[str]:
        if not shape.tags or self.chance(0.5):
            return []
        keys = sorted(shape.tags)
        return self.rng.choice(([keys[0]], [keys[-1]], keys, ["*"]))

    def interval(self, shape: Shape) -> str:
        length = shape.span_s[1] - shape.span_s[0]
        every = max(1, length // self.rng.choice((2, 3, 5, 8, 13)))
        offset = f", {self.rng.choice(('', '-'))}{max(1, every // 3)}s" if self.chance(0.2) else ""
        return f"time({every}s{offset})"

    def tail(self, *, order: bool = True) -> str:
        parts = []
        if order and self.chance(0.25):
            parts.append(self.rng.choice(("order by time desc", "order by time desc", "order by time")))
        if self.chance(0.25):
            parts.append(f"limit {self.rng.choice((1, 2, 3, 10))}")
            if self.chance(0.3):
                parts.append(f"offset {self.rng.choice((1, 2, 5))}")
        return "".join(f" {part}" for part in parts)

    def grouping(self, shape: Shape, *, windows: float = 0.6) -> tuple[str, str]:
        """WHERE and GROUP BY with fill; windows need bounds."""
        timed = self.chance(windows)
        dimensions = ([self.interval(shape)] if timed else []) + self.tags(shape)
        self.rng.shuffle(dimensions)
        group = f" group by {', '.join(dimensions)}" if dimensions else ""
        fill = self.rng.choice(FILLS) if timed else ""
        return self.where(shape, both=timed), f"{group}{' ' if fill else ''}{fill}"

    # --- statements

    def raw(self) -> str:
        shape = self.shape()
        roll = self.rng.random()
        if roll < 0.15:
            columns = "*"
        elif roll < 0.55:
            columns = ", ".join(self.rng.sample(shape.fields, self.rng.randint(1, len(shape.fields))))
        else:
            columns = ", ".join(self.number(shape) for _ in range(self.rng.randint(1, 3)))
        if shape.tags and roll > 0.3 and self.chance(0.3):
            columns += f", {self.rng.choice(sorted(shape.tags))}"
        dimensions = self.tags(shape)
        group = f" group by {', '.join(dimensions)}" if dimensions else ""
        return f"select {columns} from {shape.name}{self.where(shape)}{group}{self.tail()}"

    def call(self, shape: Shape) -> str:
        name = self.rng.choice(AGGREGATES)
        fields = shape.fields if name in ("count", "first", "last") else shape.numbers
        return f"{name}({self.rng.choice(fields)})"

    def aggregates(self) -> str:
        shape = self.shape()
        columns = [self.call(shape) for _ in range(self.rng.choice((1, 1, 2, 3)))]
        if self.chance(0.2):
            left, right = (f"{self.rng.choice(AGGREGATES)}({self.rng.choice(shape.numbers)})" for _ in range(2))
            columns.append(f"{left} {self.rng.choice('+-*/')} {right}")
        if self.chance(0.2):
            columns[0] += " as x"
        where, group = self.grouping(shape)
        return f"select {', '.join(columns)} from {shape.name}{where}{group}{self.tail()}"

    def selector(self) -> str:
        shape = self.shape()
        columns = [f"{self.rng.choice(SELECTORS)}({self.rng.choice(shape.numbers)})"]
        beside = [*shape.fields, *sorted(shape.tags)]
        columns += self.rng.sample(beside, min(len(beside), self.rng.choice((0, 1, 2))))
        where, group = self.grouping(shape, windows=0.3)
        group = re.sub(r" fill\((0|-2)\)", "", group)
        return f"select {', '.join(columns)} from {shape.name}{where}{group}{self.tail()}"

    def sequence(self) -> str:
        shape = self.shape()
        name = self.rng.choice((*SEQUENCES, "moving_average"))
        second = ", 2" if name == "moving_average" else ""
        if name in ("derivative", "elapsed") and self.chance(0.5):
            second = f", {self.rng.choice(('1s', '10s', '1m'))}"
        field_name = self.rng.choice(shape.numbers)
        if self.chance(0.5):
            # The deviation of one value is no number; what becomes of it in a sequence is not compared.
            inner = f"{self.rng.choice([one for one in AGGREGATES if one != 'stddev'])}({field_name})"
            where, group = self.grouping(shape, windows=1.0)
        else:
            inner, where = field_name, self.where(shape)
            tags = sorted(shape.tags)
            group = f" group by {', '.join(tags)}" if tags and self.chance(0.5) else ""
        return f"select {name}({inner}{second}) from {shape.name}{where}{group}{self.tail(order=False)}"

    def picks(self) -> str:
        """Functions that choose points or need their order."""
        shape = self.shape()
        number = self.rng.choice(shape.numbers)
        apart = f", {self.rng.choice(sorted(shape.tags))}" if shape.tags and self.chance(0.4) else ""
        call = self.rng.choice(
            (
                f"top({number}{apart}, {self.rng.choice((1, 2, 3, 50))})",
                f"bottom({number}{apart}, {self.rng.choice((1, 2, 3, 50))})",
                f"percentile({number}, {self.rng.choice((5, 50, 90, 99.9))})",
                f"distinct({self.rng.choice(shape.fields)})",
                f"integral({number}{self.rng.choice(('', ', 1m'))})",
                f"count(distinct({self.rng.choice(shape.fields)}))",
            )
        )
        where, group = self.grouping(shape, windows=0.3)
        return f"select {call} from {shape.name}{where}{group}"

    def zoned(self) -> str:
        """Windows of a time zone around the change of its clocks."""
        start, end = self.rng.choice((("2018-03-24", "2018-03-27"), ("2018-10-27", "2018-10-30")))
        every = self.rng.choice(("1d", "12h", "6h", "2h", "1h"))
        zone = self.rng.choice(("Europe/Berlin", "Europe/London", "America/New_York", "Asia/Kolkata", "UTC"))
        call = f"{self.rng.choice(AGGREGATES)}({self.rng.choice(('v', 'f'))})"
        fill = self.rng.choice(FILLS)
        return (
            f"select {call} from dst where time >= '{start}' and time < '{end}' "
            f"group by time({every}){' ' if fill else ''}{fill}{self.tail()} tz('{zone}')"
        )

    def subquery(self) -> str:
        shape = self.shape()
        alias = "x"
        if self.chance(0.5):
            inner_columns = f"{self.rng.choice(AGGREGATES)}({self.rng.choice(shape.numbers)}) as {alias}"
            where, group = self.grouping(shape)
        else:
            inner_columns, where = f"{self.rng.choice(shape.numbers)} as {alias}", self.where(shape)
            group = ""
        inner = f"select {inner_columns} from {shape.name}{where}{group}"
        outer = f"{self.rng.choice(AGGREGATES)}({alias})" if self.chance(0.7) else alias
        tags = self.tags(shape)
        outer_group = f" group by {', '.join(tags)}" if tags else ""
        return f"select {outer} from ({inner}){outer_group}"

    def show(self) -> str:
        shape = self.shape()
        source = f" from {shape.name}" if self.chance(0.6) else ""
        tag = self.rng.choice(sorted(shape.tags) or ["host"])
        value = self.rng.choice(shape.tags.get(tag, ("a",)))
        where = f" where {tag} {self.rng.choice(('=', '=', '=~'))} " if self.chance(0.4) else ""
        if where:
            where += f"/{value or 'x'}/" if where.endswith("=~ ") else f"'{value or 'x'}'"
        limit = f" limit {self.rng.choice((1, 2, 5))}" if self.chance(0.3) else ""
        return self.rng.choice(
            (
                f"show series{source}{where}{limit}",
                f"show tag keys{source}{where}{limit}",
                f"show tag values{source} with key = {tag}{where}{limit}",
                f"show tag values{source} with key =~ /{tag[0]}/{where}{limit}",
                f"show tag values{source} with key in ({tag}, nothere){where}{limit}",
                f"show measurements with measurement =~ /{shape.name[0]}/{where}{limit}",
                f"show field keys from {shape.name}{limit}",
            )
        )

    def broken(self) -> str:
        """A statement with a word taken out, doubled, moved or replaced: mostly the text of an error is compared."""
        words = words_of(self.rng.choice((self.raw, self.aggregates, self.sequence, self.show))())
        # A condition without its comparison is a number, of which InfluxDB sometimes says that it holds.
        where = self.rng.choice([place for place, word in enumerate(words) if word not in COMPARISONS])
        roll = self.rng.random()
        if roll < 0.4:
            del words[where]
        elif roll < 0.55:
            words.insert(where, words[where])
        elif roll < 0.75:
            other = self.rng.choice([place for place, word in enumerate(words) if word not in COMPARISONS])
            words[where], words[other] = words[other], words[where]
        else:
            words[where] = self.rng.choice(
                ("from", "where", "(", ")", ",", "'x'", "5", "and", "by", "nothere", "group")
            )
        return " ".join(words)


_WORD = re.compile(r"'[^']*'|/[^/ ]+/|[a-z_A-Z]\w*|\d+\.?\d*[a-z]*|[<>!=]=?~?|\S")


def words_of(statement: str) -> list[str]:
    return _WORD.findall(statement)


def statements(seed: int, count: int, *, nested: bool = True) -> list[str]:
    """``count`` statements of a seed."""
    generator = Generator(random.Random(seed), nested)
    return [generator.statement() for _ in range(count)]


def shrink(statement: str, differs: Callable[[str], bool], most_tries: int = 300) -> str:
    """The statement without the words that the difference does not need; asks at most ``most_tries`` times."""
    words, tries = words_of(statement), 0
    if not differs(" ".join(words)):
        return statement
    size = max(1, len(words) // 2)
    while size:
        position = 0
        while position < len(words) and tries < most_tries:
            shorter = words[:position] + words[position + size :]
            tries += 1
            if shorter and differs(" ".join(shorter)):
                words = shorter
            else:
                position += 1
        size = 0 if tries >= most_tries else size // 2
    return " ".join(words)
