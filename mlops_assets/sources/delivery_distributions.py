"""Rules on the distribution of a column's values: shifted, in another unit, or exchanged with another column."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations, pairwise
from math import sqrt
from statistics import geometric_mean, median

from mlops_assets.schema.source import DeliveryComparison
from mlops_assets.sources.delivery_findings import DeliveryFinding
from mlops_assets.sources.delivery_profiles import ColumnProfile

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


_RISING = 0.9
_ORDINARY, _ORDINARY_SPREAD = 0.6, (0.4, 2.5)
_EXCHANGED, _POSSIBLE = 0.8, 1.5
_FAR_FACTOR = 8
_TOLERANCES, _MATCHES_GAINED, _STANDARD_ERRORS = (0.0003, 0.0025), 0.4, 6
_BESIDE = (0.985, 1.015)


@dataclass(frozen=True)
class UsualQuantiles:
    """The usual quantiles of a column over several partitions, with their spread from partition to partition and within one.

    `lowest` and `highest` are the extremes of the outer quantiles, `narrowest` and `widest` of the spread within a partition. Of a sequence,
    such as the number of an order, each partition begins above the one before.
    """

    middle: tuple[float, ...]
    between: tuple[float, ...]
    within: float
    narrowest: float
    widest: float
    lowest: float
    highest: float
    is_sequence: bool

    @classmethod
    def of(cls, quantiles: Sequence[tuple[float, ...]]) -> "UsualQuantiles | None":
        """The shape of the partitions with these `quantiles`; None without any, or when most values of most partitions are one value."""
        if not quantiles:
            return None
        columns = list(zip(*quantiles, strict=True))
        middle = tuple(median(values) for values in columns)
        between = tuple(
            _MAD * median([abs(value - centre) for value in values]) for values, centre in zip(columns, middle, strict=True)
        )
        spreads = [row[-1] - row[0] for row in quantiles]
        if median(spreads) <= 0 or median([row[-2] - row[1] for row in quantiles]) <= 0:
            return None
        steps = [after[0] > before[-1] for before, after in pairwise(quantiles)]
        return cls(
            middle=middle,
            between=between,
            within=median(spreads),
            narrowest=min(spreads),
            widest=max(spreads),
            lowest=min(columns[0]),
            highest=max(columns[-1]),
            is_sequence=bool(steps) and sum(steps) >= _RISING * len(steps),
        )

    def distance(self, quantiles: Sequence[float]) -> float:
        """Return the distance of `quantiles` from the usual ones: the mean of the three inner ones, in units of both spreads."""
        return self._mean(quantiles, slice(1, -1))

    def fits(self, quantiles: Sequence[float]) -> bool:
        """Whether a partition with all of these `quantiles` would be an ordinary one."""
        return self._mean(quantiles, slice(None)) <= _ORDINARY and self.has_ordinary_spread(quantiles)

    def is_scaled(self, quantiles: Sequence[float], scale: float) -> bool:
        """Whether a partition with these `quantiles` is `scale` times wider or narrower than any before, in the middle and between the ends.

        How wide a sequence is says how many rows there are.
        """
        if self.is_sequence:
            return False
        spread, inner = quantiles[-1] - quantiles[0], quantiles[-2] - quantiles[1]
        usual = self.middle[-2] - self.middle[1]
        return (spread < self.narrowest / scale and inner < usual / scale) or (
            spread > self.widest * scale and inner > usual * scale
        )

    def scale_of(self, quantiles: Sequence[float]) -> float | None:
        """Return the factor by which `quantiles` are larger than usual, in the geometric mean; None when most of them are not positive."""
        pairs = [(value, usual) for value, usual in zip(quantiles, self.middle, strict=True) if value > 0 and usual > 0]
        return geometric_mean([value / usual for value, usual in pairs]) if len(pairs) > len(self.middle) // 2 else None

    def has_ordinary_spread(self, quantiles: Sequence[float]) -> bool:
        """Whether a partition with these outer `quantiles` is about as wide as usual."""
        return _ORDINARY_SPREAD[0] <= (quantiles[-1] - quantiles[0]) / self.within <= _ORDINARY_SPREAD[1]

    def _mean(self, quantiles: Sequence[float], part: slice) -> float:
        chosen = list(zip(quantiles, self.middle, self.between, strict=True))[part]
        return sum(abs(value - centre) / (3 * spread + self.within / 4) for value, centre, spread in chosen) / len(chosen)


def compare_distribution(
    partition: date, profile: ColumnProfile, shape: UsualQuantiles, occurrences: Mapping[str, int], rules: DeliveryComparison
) -> Iterator[DeliveryFinding]:
    """The finding that the values of a column are elsewhere than usual, or in another unit."""
    quantiles = profile.quantiles or ()
    distance = shape.distance(quantiles)
    is_scaled = shape.is_scaled(quantiles, rules.scale)
    is_beyond = not shape.lowest <= quantiles[2] <= shape.highest
    if profile.kind == "number" and (unit := _unit(profile, shape, occurrences, is_moved=is_scaled or distance >= rules.notable)):
        yield DeliveryFinding(
            partition, profile.column, "unit", True, f"values are as if multiplied by {unit}: {_shown(profile, shape)}"
        )
    elif is_scaled or distance >= rules.notable:
        gross = is_scaled or (distance >= rules.gross and is_beyond)
        text = f"{profile.kind}s are elsewhere: {_shown(profile, shape)}; {distance:.1f} units"
        yield DeliveryFinding(partition, profile.column, "distribution", gross, text)


def _unit(profile: ColumnProfile, shape: UsualQuantiles, occurrences: Mapping[str, int], *, is_moved: bool) -> str | None:
    """The unit that makes an ordinary partition of this one. A storm gives a factor near one too: there the values must become known ones."""
    quantiles = profile.quantiles or ()
    counts = profile.counts or {}
    known_rows = sum(rows for value, rows in counts.items() if value in occurrences)
    is_known = known_rows > (1 - _MATCHES_GAINED) * sum(counts.values()) or not counts
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
                if _is_gained(_matching(undone, known, tolerance), chance, len(values)):
                    return unit
    return None


def _is_gained(matched: float, chance: float, values: int) -> bool:
    """Whether a share of so many different values is larger than that by chance, also where thousands of columns and days are compared."""
    error = sqrt((matched * (1 - matched) + chance * (1 - chance)) / max(values, 1))
    return matched - chance >= max(_MATCHES_GAINED, _STANDARD_ERRORS * error)


def _matching(values: Mapping[float, int], known: Sequence[float], tolerance: float) -> float:
    """The share of rows whose value is one of `known`, within `tolerance` of it. Zero, which most units have, counts nowhere."""
    rows = sum(number for value, number in values.items() if value)
    matched = sum(
        number
        for value, number in values.items()
        if value and bisect_left(known, value - abs(value) * tolerance) < bisect_right(known, value + abs(value) * tolerance)
    )
    return matched / rows if rows else 0.0


def _shown(profile: ColumnProfile, shape: UsualQuantiles) -> str:
    def show(value: float) -> str:
        return f"{value / 3600:,.1f} h" if profile.kind == "time" else f"{value:,.4g}"

    now, usual = profile.quantiles or (), shape.middle
    return (
        f"median {show(now[2])} and 5 % to 95 % {show(now[0])} to {show(now[-1])}, "
        f"before {show(usual[2])} and {show(usual[0])} to {show(usual[-1])}"
    )


def find_swapped_columns(partition: date, moved: Mapping[str, tuple[ColumnProfile, UsualQuantiles]]) -> Iterator[DeliveryFinding]:
    """The findings that two of the `moved` columns hold what the other one usually holds."""
    for first, second in combinations(sorted(moved), 2):
        (one, usual_one), (other, usual_other) = moved[first], moved[second]
        exchanged = max(usual_other.distance(one.quantiles or ()), usual_one.distance(other.quantiles or ()))
        if one.kind == other.kind and exchanged <= _EXCHANGED:
            yield DeliveryFinding(
                partition, first, "swapped", True, f"{first} holds what {second} usually holds, and the reverse"
            )
