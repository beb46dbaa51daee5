"""Rules that compare a delivery of a raw table with the partitions before it. Pure: profiles in, findings out; reading goes elsewhere.

A partition is compared with at most `partitions` accepted ones before it. Distances are in robust units of those: the median of each
quantile, its spread from partition to partition (median absolute deviation), and the spread within a partition.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from statistics import median

from mlops_assets.resources.delivery_profiles import WHOLE_TABLE, ColumnProfile
from mlops_assets.source import DeliveryComparison

_LEAST_ROWS = 20
"""A partition of fewer known values has no distribution to speak of."""

_MAD = 1.4826

_UNITS: Mapping[str, tuple[float, float]] = {
    "1/60 (hours for minutes, minutes for seconds)": (1 / 60, 0),
    "60 (minutes for hours, seconds for minutes)": (60, 0),
    "24 (hours for days)": (24, 0),
    "1/24 (days for hours)": (1 / 24, 0),
    "3600": (3600, 0),
    "1/3600": (1 / 3600, 0),
    "1000": (1000, 0),
    "1/1000": (1 / 1000, 0),
    "100 (cents, percent)": (100, 0),
    "1/100": (1 / 100, 0),
    "2.54 (centimetres for inches)": (2.54, 0),
    "1/2.54 (inches for centimetres)": (1 / 2.54, 0),
    "25.4 (millimetres for inches)": (25.4, 0),
    "1/25.4 (inches for millimetres)": (1 / 25.4, 0),
    "1.609 (kilometres for miles)": (1.609344, 0),
    "1/1.609 (miles for kilometres)": (1 / 1.609344, 0),
    "0.4536 (kilograms for pounds)": (0.45359237, 0),
    "2.2046 (pounds for kilograms)": (1 / 0.45359237, 0),
    "3.281 (feet for metres)": (1 / 0.3048, 0),
    "0.3048 (metres for feet)": (0.3048, 0),
    "0.447 (metres a second for miles an hour)": (0.44704, 0),
    "0.02953 (inches of mercury for millibars)": (0.0295299830714, 0),
    "5/9, from 32 (Celsius for Fahrenheit)": (5 / 9, -160 / 9),
    "9/5, plus 32 (Fahrenheit for Celsius)": (9 / 5, 32),
    "-1 (the sign)": (-1, 0),
}
"""How a value in the wrong unit comes from the right one: factor and summand."""


@dataclass(frozen=True)
class Finding:
    """One difference of a partition from those before it. `is_gross` ones stop the delivery.

    `text` goes into messages, so it quotes no value of the delivery; `values` are evidence.
    """

    partition: date
    column: str | None
    kind: str
    is_gross: bool
    text: str
    values: tuple[str, ...] = ()

    @property
    def evidence(self) -> str:
        """The difference in words, with values that show it."""
        return f"{self}, such as {', '.join(self.values)}" if self.values else str(self)

    def __str__(self) -> str:
        """The difference in words."""
        partition = "" if self.partition == WHOLE_TABLE else str(self.partition)
        return f"{' of '.join(filter(None, [self.column, partition])) or 'table'}: {self.text}"


def compare_delivery(
    delivered: Sequence[ColumnProfile], before: Sequence[ColumnProfile], rules: DeliveryComparison
) -> list[Finding]:
    """The differences of each delivered partition from those before it, of this delivery or accepted earlier. Few before: none."""
    accepted, arriving = _by_partition(before), _by_partition(delivered)
    reference = Reference(rules.partitions)
    findings = []
    for partition in sorted(accepted.keys() | arriving.keys()):
        columns = arriving.get(partition)
        differences: list[Finding] = []
        if columns is not None and len(reference.partitions) >= rules.minimum_partitions:
            differences = list(_differences(partition, columns, reference, rules))
        findings += differences
        if not any(finding.is_gross for finding in differences):
            reference.add(columns or accepted[partition])
    return findings


def _by_partition(profiles: Sequence[ColumnProfile]) -> dict[date, dict[str, ColumnProfile]]:
    partitions: dict[date, dict[str, ColumnProfile]] = defaultdict(dict)
    for profile in profiles:
        partitions[profile.partition][profile.column] = profile
    return dict(partitions)


class Reference:
    """The last partitions that were accepted, with the values of each column: in how many of them, and in how many rows."""

    def __init__(self, most: int):
        self.partitions: deque[Mapping[str, ColumnProfile]] = deque()
        self.partitions_with: dict[str, Counter[str]] = defaultdict(Counter)
        self._most = most

    def add(self, columns: Mapping[str, ColumnProfile]) -> None:
        """Take a partition in, and leave the oldest out when there are too many."""
        self.partitions.append(columns)
        for name, profile in columns.items():
            self.partitions_with[name].update((profile.counts or {}).keys())
        if len(self.partitions) > self._most:
            for name, profile in self.partitions.popleft().items():
                occurrences = self.partitions_with[name]
                occurrences.subtract((profile.counts or {}).keys())
                for value in profile.counts or {}:
                    if not occurrences[value]:
                        del occurrences[value]

    def of(self, column: str) -> list[ColumnProfile]:
        """The profiles of `column`."""
        return [each[column] for each in self.partitions if column in each]


def _differences(
    partition: date, columns: Mapping[str, ColumnProfile], reference: Reference, rules: DeliveryComparison
) -> Iterator[Finding]:
    compared = {name: profile for name, profile in columns.items() if name not in rules.ignore}
    yield from _rows(partition, columns, reference)
    yield from _missing(partition, compared, reference)
    categorical = {name for name, profile in compared.items() if _is_categorical(profile, reference)}
    shapes: dict[str, Shape] = {}
    for name, profile in compared.items():
        if name in categorical:
            continue
        former = [each.quantiles for each in reference.of(name) if each.quantiles is not None and each.known >= _LEAST_ROWS]
        shape = Shape.of(former) if profile.quantiles is not None and profile.known >= _LEAST_ROWS else None
        if shape is not None:
            shapes[name] = shape
    moved = {}
    for name, shape in shapes.items():
        profile = compared[name]
        if shape.distance(profile.quantiles or ()) >= rules.notable:
            moved[name] = (profile, shape)
        yield from _moved(partition, profile, shape, reference.partitions_with[name], rules)
    yield from _swapped(partition, moved)
    for name, profile in compared.items():
        if name in categorical:
            yield from _categories(partition, profile, reference)
        else:
            yield from _numbers(partition, profile, reference, shapes.get(name))


def _is_categorical(profile: ColumnProfile, reference: Reference) -> bool:
    """Whether the values are compared as categories: texts, and numbers of few values, such as flags, whose quantiles jump."""
    values = reference.partitions_with[profile.column].keys() | (profile.counts or {}).keys()
    return profile.kind == "text" or (profile.kind == "number" and profile.counts is not None and len(values) <= _FEW_VALUES)


def _rows(partition: date, columns: Mapping[str, ColumnProfile], reference: Reference) -> Iterator[Finding]:
    rows = max((profile.rows for profile in columns.values()), default=0)
    former = [max(profile.rows for profile in each.values()) for each in reference.partitions]
    # Of small partitions many have few rows by chance.
    if rows < _FEW_ROWS * min(former) and min(former) - rows > _CHANCE * min(former) ** 0.5:
        yield Finding(
            partition, None, "rows", True, f"{rows} rows, the {len(former)} partitions before have at least {min(former)}"
        )
    elif rows > _MANY_ROWS * max(former):
        yield Finding(
            partition, None, "rows", False, f"{rows} rows, the {len(former)} partitions before have at most {max(former)}"
        )


_FEW_ROWS, _MANY_ROWS, _CHANCE = 0.75, 1.8, 3
_FEW_VALUES = 12
_NOTABLE_MISSING, _GROSS_MISSING, _JOINT_MISSING = 0.25, 0.35, 0.8
_TOGETHER = 0.05


def _missing(partition: date, compared: Mapping[str, ColumnProfile], reference: Reference) -> Iterator[Finding]:
    """Shares of nulls. Columns that go missing together, as those of cancelled orders do, are one event and no fault of one column."""
    shares = {name: sorted(each.missing for each in reference.of(name)) for name in compared if reference.of(name)}
    # One partition in ten may have been as bad.
    usual = {name: values[int(0.9 * (len(values) - 1))] for name, values in shares.items()}
    rise = {name: compared[name].missing - usual[name] for name in shares}
    for name, increase in rise.items():
        if increase < _NOTABLE_MISSING:
            continue
        companions = [
            other
            for other in rise
            if other != name
            and abs(rise[other] - increase) < _TOGETHER
            and abs(median(shares[other]) - median(shares[name])) < _TOGETHER
        ]
        alone = not companions and increase >= _GROSS_MISSING
        together = f", together with {', '.join(companions)}" if companions else ""
        yield Finding(
            partition,
            name,
            "missing",
            alone or compared[name].missing - usual[name] >= _JOINT_MISSING,
            f"{compared[name].missing:.0%} missing, usually up to {usual[name]:.0%}{together}",
        )


@dataclass(frozen=True)
class Shape:
    """The usual quantiles of a column over several partitions, with their spread from partition to partition and within one.

    `lowest` and `highest` are the extremes of the outer quantiles, `narrowest` and `widest` of the spread within a partition.
    """

    middle: tuple[float, ...]
    between: tuple[float, ...]
    within: float
    narrowest: float
    widest: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, quantiles: Sequence[tuple[float, ...]]) -> "Shape | None":
        """The shape of the partitions with these `quantiles`; None without any, or when most values of most partitions are one value."""
        if not quantiles:
            return None
        columns = list(zip(*quantiles, strict=True))
        middle = tuple(median(values) for values in columns)
        between = tuple(
            _MAD * median([abs(value - centre) for value in values]) for values, centre in zip(columns, middle, strict=True)
        )
        spreads = [each[-1] - each[0] for each in quantiles]
        if median(spreads) <= 0 or median([each[-2] - each[1] for each in quantiles]) <= 0:
            return None
        return cls(middle, between, median(spreads), min(spreads), max(spreads), min(columns[0]), max(columns[-1]))

    def distance(self, quantiles: Sequence[float]) -> float:
        """How far `quantiles` lie from the usual ones: the mean of the three inner ones, in units of both spreads."""
        return self._mean(quantiles, slice(1, -1))

    def fits(self, quantiles: Sequence[float]) -> bool:
        """Whether a partition with all of these `quantiles` would be an ordinary one."""
        return self._mean(quantiles, slice(None)) <= _ORDINARY and self.has_ordinary_spread(quantiles)

    def is_scaled(self, quantiles: Sequence[float], scale: float) -> bool:
        """Whether a partition with these `quantiles` is `scale` times wider or narrower than any before, in the middle and between the ends."""
        spread, inner = quantiles[-1] - quantiles[0], quantiles[-2] - quantiles[1]
        usual = self.middle[-2] - self.middle[1]
        return (spread < self.narrowest / scale and inner < usual / scale) or (
            spread > self.widest * scale and inner > usual * scale
        )

    def has_ordinary_spread(self, quantiles: Sequence[float]) -> bool:
        """Whether a partition with these outer `quantiles` is about as wide as usual."""
        return _ORDINARY_SPREAD[0] <= (quantiles[-1] - quantiles[0]) / self.within <= _ORDINARY_SPREAD[1]

    def _mean(self, quantiles: Sequence[float], part: slice) -> float:
        chosen = list(zip(quantiles, self.middle, self.between, strict=True))[part]
        return sum(abs(value - centre) / (3 * spread + self.within / 4) for value, centre, spread in chosen) / len(chosen)


_ORDINARY, _ORDINARY_SPREAD = 0.6, (0.4, 2.5)
_EXCHANGED, _POSSIBLE = 0.8, 1.5
_FAR_FACTOR = 8
_TOLERANCES, _MATCHES_GAINED = (0.0003, 0.0025), 0.4
_BESIDE = (0.985, 1.015)


def _moved(
    partition: date, profile: ColumnProfile, shape: Shape, occurrences: Mapping[str, int], rules: DeliveryComparison
) -> Iterator[Finding]:
    quantiles = profile.quantiles or ()
    distance = shape.distance(quantiles)
    is_scaled = shape.is_scaled(quantiles, rules.scale)
    is_beyond = not shape.lowest <= quantiles[2] <= shape.highest
    if profile.kind == "number" and (unit := _unit(profile, shape, occurrences, is_moved=is_scaled or distance >= rules.notable)):
        yield Finding(partition, profile.column, "unit", True, f"values are as if multiplied by {unit}: {_shown(profile, shape)}")
    elif is_scaled or distance >= rules.notable:
        gross = is_scaled or (distance >= rules.gross and is_beyond)
        text = f"{profile.kind}s are elsewhere: {_shown(profile, shape)}; {distance:.1f} units"
        yield Finding(partition, profile.column, "distribution", gross, text)


def _unit(profile: ColumnProfile, shape: Shape, occurrences: Mapping[str, int], *, is_moved: bool) -> str | None:
    """The unit that makes an ordinary partition of this one. A storm gives a factor near one too: there the values must become known ones."""
    quantiles = profile.quantiles or ()
    counts = profile.counts or {}
    seen = sum(rows for value, rows in counts.items() if value in occurrences)
    is_known = seen > (1 - _MATCHES_GAINED) * sum(counts.values()) or not counts
    if is_known and not is_moved:
        return None
    known = sorted(float(value) for value in occurrences)
    values = {float(value): rows for value, rows in counts.items()}
    for unit, (factor, summand) in _UNITS.items():
        before = sorted((value - summand) / factor for value in quantiles)
        if not 1 / _FAR_FACTOR < abs(factor) < _FAR_FACTOR:
            if is_moved and shape.fits(before):
                return unit
        elif not is_known and shape.has_ordinary_spread(before) and shape.distance(before) <= _POSSIBLE:
            undone = {(value - summand) / factor: rows for value, rows in values.items()}
            for tolerance in _TOLERANCES:
                # What would match by chance, where known values lie close together.
                others = [values, *({value * beside: rows for value, rows in undone.items()} for beside in _BESIDE)]
                chance = max(_matching(other, known, tolerance) for other in others)
                if _matching(undone, known, tolerance) - chance >= _MATCHES_GAINED:
                    return unit
    return None


def _matching(values: Mapping[float, int], known: Sequence[float], tolerance: float) -> float:
    """The share of rows whose value is one of `known`, within `tolerance` of it. Zero, which most units have, counts nowhere."""
    rows = sum(number for value, number in values.items() if value)
    matched = sum(
        number
        for value, number in values.items()
        if value and bisect_left(known, value - abs(value) * tolerance) < bisect_right(known, value + abs(value) * tolerance)
    )
    return matched / rows if rows else 0.0


def _shown(profile: ColumnProfile, shape: Shape) -> str:
    def show(value: float) -> str:
        return f"{value / 3600:,.1f} h" if profile.kind == "time" else f"{value:,.4g}"

    now, usual = profile.quantiles or (), shape.middle
    return (
        f"median {show(now[2])} and 5 % to 95 % {show(now[0])} to {show(now[-1])}, "
        f"before {show(usual[2])} and {show(usual[0])} to {show(usual[-1])}"
    )


def _swapped(partition: date, moved: Mapping[str, tuple[ColumnProfile, Shape]]) -> Iterator[Finding]:
    for first, second in combinations(sorted(moved), 2):
        (one, usual_one), (other, usual_other) = moved[first], moved[second]
        exchanged = max(usual_other.distance(one.quantiles or ()), usual_one.distance(other.quantiles or ()))
        if one.kind == other.kind and exchanged <= _EXCHANGED:
            yield Finding(partition, first, "swapped", True, f"{first} holds what {second} usually holds, and the reverse")


_REPEATING, _REPEATING_NUMBERS, _LEAST_VALUES, _GROSS_UNKNOWN = 0.7, 0.9, 5, 0.7
_NOTABLE_NEW, _GROSS_NEW, _RENAMED = 0.15, 0.5, 0.1
_NOTABLE_SHIFT, _GROSS_SHIFT, _UNUSUAL = 0.35, 0.6, 3
_FREQUENT, _MOST_SHARES = 0.02, 50
_SHOWN_VALUES, _MOST_VALUES = 3, 5


def _numbers(partition: date, profile: ColumnProfile, reference: Reference, shape: Shape | None) -> Iterator[Finding]:
    """Numbers within the usual range that the partitions before do not have, in a column whose values repeat."""
    if profile.kind != "number" or not profile.counts:
        return

    def is_inside(value: str) -> bool:
        # A season may bring numbers beyond the usual ones, but not others between them.
        return shape is None or shape.middle[0] <= float(value) <= shape.middle[-1]

    counts = {value: rows for value, rows in profile.counts.items() if is_inside(value)}
    seen = {value: number for value, number in reference.partitions_with[profile.column].items() if is_inside(value)}
    new, share = _new(counts, seen)
    is_varied = not _is_constant(profile, reference) and (shape is None or len(counts) >= _LEAST_VALUES)
    if (
        sum(counts.values()) >= _LEAST_ROWS
        and share >= _GROSS_UNKNOWN
        and is_varied
        and _repeats(seen, reference, _REPEATING_NUMBERS)
    ):
        text = f"{share:.0%} of the values in the usual range never occurred before"
        yield Finding(partition, profile.column, "values", True, text, new)


def _categories(partition: date, profile: ColumnProfile, reference: Reference) -> Iterator[Finding]:
    """Values that the partitions before do not have, frequent ones that are gone, and shares that are other than in any of them."""
    counts, seen = profile.counts or {}, reference.partitions_with[profile.column]
    is_constant = _is_constant(profile, reference)
    # A number that a whole partition shares, such as its month, moves on.
    if (
        (is_constant and profile.kind == "number")
        or sum(counts.values()) < _LEAST_ROWS
        or not _repeats(seen, reference, _REPEATING)
    ):
        return
    new, share = _new(counts, seen)
    gone = _gone(profile, reference)
    lost = sum(gone.values())
    shift, usual = _shift(profile, reference)
    is_shifted = shift >= max(_NOTABLE_SHIFT, _UNUSUAL * usual)
    if share < _NOTABLE_NEW and not gone and not is_shifted:
        return
    gross = max(share, lost) >= _GROSS_NEW or min(share, lost) >= _RENAMED or (is_shifted and shift >= _GROSS_SHIFT)
    texts = [f"{share:.0%} of the rows have new values"] if share else []
    if gone:
        texts.append(f"the values of usually {lost:.0%} of the rows are gone")
    if is_shifted:
        texts.append(f"{shift:.0%} of the rows have other values than usual, before at most {usual:.0%}")
    values = (*new, *(f"{value} (gone)" for value in list(gone)[:_SHOWN_VALUES]))[:_MOST_VALUES]
    yield Finding(partition, profile.column, "categories", gross and not is_constant, "; ".join(texts), values)


def _new(counts: Mapping[str, int], seen: Mapping[str, int]) -> tuple[tuple[str, ...], float]:
    """The most frequent values of `counts` that `seen` lacks, and the share of the rows that have such a value."""
    new = {value: rows for value, rows in counts.items() if value not in seen}
    examples = sorted(new, key=lambda value: (-new[value], value))[:_SHOWN_VALUES]
    return tuple(examples), sum(new.values()) / sum(counts.values()) if new else 0.0


def _repeats(seen: Mapping[str, int], reference: Reference, wanted: float) -> bool:
    """Whether the share `wanted` of the values occurs in several partitions. With one partition before, nothing can repeat."""
    repeated = sum(number > 1 for number in seen.values())
    return bool(seen) and (len(reference.partitions) == 1 or repeated >= wanted * len(seen))


def _is_constant(profile: ColumnProfile, reference: Reference) -> bool:
    """Whether a partition usually has a single value."""
    return median([len(each.counts or {}) for each in reference.of(profile.column)]) <= 1


def _shift(profile: ColumnProfile, reference: Reference) -> tuple[float, float]:
    """How far the shares of the values are from the usual ones (total variation distance), and how far they were before at most.

    Zero for a column of many values: each of them is rare.
    """
    former = [_shares(each.counts) for each in reference.of(profile.column) if each.known >= _LEAST_ROWS]
    values = {value for shares in former for value in shares} | (profile.counts or {}).keys()
    if not former or len(values) > _MOST_SHARES:
        return 0.0, 0.0
    usual = {value: median([shares.get(value, 0.0) for shares in former]) for value in values}

    def distance(shares: Mapping[str, float]) -> float:
        return sum(abs(shares.get(value, 0.0) - share) for value, share in usual.items()) / 2

    return distance(_shares(profile.counts)), max(map(distance, former))


def _shares(counts: Mapping[str, int] | None) -> dict[str, float]:
    rows = sum((counts or {}).values())
    return {value: number / rows for value, number in (counts or {}).items()}


def _gone(profile: ColumnProfile, reference: Reference) -> dict[str, float]:
    """The usual share of each frequent value that every partition before has and this one lacks."""
    everywhere = len(reference.partitions)
    occurrences = reference.partitions_with[profile.column]
    missing = [value for value, number in occurrences.items() if number == everywhere and value not in (profile.counts or {})]
    if not missing:
        return {}
    former = [each.counts or {} for each in reference.of(profile.column)]
    total = sum(sum(counts.values()) for counts in former)
    shares = {value: sum(counts.get(value, 0) for counts in former) / total for value in missing}
    return {value: share for value, share in sorted(shares.items(), key=lambda each: -each[1]) if share >= _FREQUENT}
