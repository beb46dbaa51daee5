"""Rules on the single values of a column: new ones, missing ones, and unusual shares."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import combinations
from statistics import median

from mlops_assets.sources.delivery_distributions import UsualQuantiles
from mlops_assets.sources.delivery_findings import LEAST_ROWS, AcceptedPartitions, DeliveryFinding
from mlops_assets.sources.delivery_profiles import ColumnProfile

_REPEATING, _REPEATING_NUMBERS, _SELDOM, _LEAST_VALUES, _GROSS_UNKNOWN = 0.7, 0.9, 0.1, 5, 0.7
_NOTABLE_NEW, _GROSS_NEW, _RENAMED = 0.15, 0.7, 0.1
_REPRICED, _TWO_WEEKS = 1.25, 14
_NOTABLE_SHIFT, _GROSS_SHIFT, _UNUSUAL = 0.35, 0.6, 3
_FREQUENT, _MOST_SHARES = 0.02, 50
_SHOWN_VALUES, _MOST_VALUES = 3, 5


def compare_numbers(
    partition: date, profile: ColumnProfile, reference: AcceptedPartitions, shape: UsualQuantiles | None
) -> Iterator[DeliveryFinding]:
    """Numbers within the usual range that the partitions before do not have, in a column whose values repeat.

    Prices that rise are new ones too, but near the old ones and with as many decimals: no finding that stops a delivery.
    """
    if profile.kind != "number" or not profile.counts:
        return

    def is_inside(value: str) -> bool:
        # A season may bring numbers beyond the usual ones, but not others between them.
        return shape is None or shape.middle[0] <= float(value) <= shape.middle[-1]

    counts = {value: rows for value, rows in profile.counts.items() if is_inside(value)}
    new, share = _new(counts, reference.partitions_with[profile.column])
    if (
        share < _GROSS_UNKNOWN
        or sum(counts.values()) < LEAST_ROWS
        or _is_constant(profile, reference)
        or (shape is not None and len(counts) < _LEAST_VALUES)
    ):
        return
    occurrences = {value: number for value, number in reference.partitions_with[profile.column].items() if is_inside(value)}
    if _repeats(occurrences, reference, _REPEATING_NUMBERS):
        text = f"{share:.0%} of the values in the usual range never occurred before"
        is_gross = not _is_repriced(profile, counts, occurrences, shape) and not reference.brings_new(profile.column, share)
        yield DeliveryFinding(partition, profile.column, "values", is_gross, text, new)


def find_swapped_values(
    partition: date, profiles: Sequence[ColumnProfile], reference: AcceptedPartitions
) -> Iterator[DeliveryFinding]:
    """The findings that two columns of numbers hold values which only the other one had before."""
    occurrences = {profile.column: reference.partitions_with[profile.column] for profile in profiles}
    moved = [
        profile
        for profile in profiles
        if profile.kind == "number"
        and sum((profile.counts or {}).values()) >= LEAST_ROWS
        # Measurements that never repeat are always new, and no other column can hold them: hundreds of columns are not compared in pairs.
        and _repeats(occurrences[profile.column], reference, _SELDOM)
        and _new(profile.counts or {}, occurrences[profile.column])[1] >= _GROSS_UNKNOWN
    ]
    for one, other in combinations(moved, 2):
        strange = max(_new(one.counts or {}, occurrences[other.column])[1], _new(other.counts or {}, occurrences[one.column])[1])
        if strange <= 1 - _GROSS_UNKNOWN:
            text = f"{one.column} holds values that only {other.column} had before, and the reverse"
            yield DeliveryFinding(partition, one.column, "swapped", True, text)


def compare_categories(partition: date, profile: ColumnProfile, reference: AcceptedPartitions) -> Iterator[DeliveryFinding]:
    """Values that the partitions before do not have, frequent ones that are gone, and shares that are other than in any of them."""
    counts, occurrences = profile.counts or {}, reference.partitions_with[profile.column]
    is_constant = _is_constant(profile, reference)
    # A number that a whole partition shares, such as its month, moves on.
    if (
        (is_constant and profile.kind == "number")
        or sum(counts.values()) < LEAST_ROWS
        or not _repeats(occurrences, reference, _REPEATING)
    ):
        return
    new, share = _new(counts, occurrences)
    gone = _gone(profile, reference)
    lost = sum(gone.values())
    shift, usual = _shift(profile, reference)
    is_shifted = shift >= max(_NOTABLE_SHIFT, _UNUSUAL * usual)
    if share < _NOTABLE_NEW and not gone and not is_shifted:
        return
    # In the first two weeks what comes and goes weekly is not known yet.
    is_known = len(reference.partitions) >= _TWO_WEEKS
    is_renamed = max(share, lost) >= _GROSS_NEW or (is_known and min(share, lost) >= _RENAMED)
    gross = (is_renamed and not reference.brings_new(profile.column, share)) or (is_shifted and shift >= _GROSS_SHIFT)
    texts = [f"{share:.0%} of the rows have new values"] if share else []
    if gone:
        texts.append(f"the values of usually {lost:.0%} of the rows are gone")
    if is_shifted:
        texts.append(f"{shift:.0%} of the rows have other values than usual, before at most {usual:.0%}")
    values = (*new, *(f"{value} (gone)" for value in list(gone)[:_SHOWN_VALUES]))[:_MOST_VALUES]
    yield DeliveryFinding(partition, profile.column, "categories", gross and not is_constant, "; ".join(texts), values)


def _is_repriced(
    profile: ColumnProfile, counts: Mapping[str, int], occurrences: Mapping[str, int], shape: UsualQuantiles | None
) -> bool:
    """Whether the new numbers are about as large as the known ones, and as exact: no unit is that near to another one."""
    scale = shape.scale_of(profile.quantiles or ()) if shape is not None else None
    return (
        scale is not None
        and 1 / _REPRICED <= scale <= _REPRICED
        and max(map(_decimals, counts), default=0) <= max(map(_decimals, occurrences), default=0)
    )


def _decimals(value: str) -> int:
    return len(value.partition(".")[2].rstrip("0"))


def _new(counts: Mapping[str, int], occurrences: Mapping[str, int]) -> tuple[tuple[str, ...], float]:
    """The most frequent values of `counts` that `occurrences` lacks, and the share of the rows that have such a value."""
    new = {value: rows for value, rows in counts.items() if value not in occurrences}
    examples = sorted(new, key=lambda value: (-new[value], value))[:_SHOWN_VALUES]
    return tuple(examples), sum(new.values()) / sum(counts.values()) if new else 0.0


def _repeats(occurrences: Mapping[str, int], reference: AcceptedPartitions, minimum_share: float) -> bool:
    """Whether at least `minimum_share` of the values occurs in several partitions. With one partition before, nothing can repeat."""
    repeated = sum(number > 1 for number in occurrences.values())
    return bool(occurrences) and (len(reference.partitions) == 1 or repeated >= minimum_share * len(occurrences))


def _is_constant(profile: ColumnProfile, reference: AcceptedPartitions) -> bool:
    """Whether a partition usually has a single value."""
    return median([len(earlier.counts or {}) for earlier in reference.of(profile.column)]) <= 1


def _shift(profile: ColumnProfile, reference: AcceptedPartitions) -> tuple[float, float]:
    """Return the distance of the shares of the values from the usual ones (total variation), and the largest one before.

    Zero for a column of many values: each of them is rare.
    """
    former = [earlier.shares for earlier in reference.of(profile.column) if earlier.known >= LEAST_ROWS]
    values = {value for shares in former for value in shares} | (profile.counts or {}).keys()
    if not former or len(values) > _MOST_SHARES:
        return 0.0, 0.0
    usual = {value: median([shares.get(value, 0.0) for shares in former]) for value in values}

    def distance(shares: Mapping[str, float]) -> float:
        return sum(abs(shares.get(value, 0.0) - share) for value, share in usual.items()) / 2

    return distance(profile.shares), max(map(distance, former))


def _gone(profile: ColumnProfile, reference: AcceptedPartitions) -> dict[str, float]:
    """The usual share of each frequent value that every partition before has and this one lacks."""
    everywhere = len(reference.partitions)
    occurrences = reference.partitions_with[profile.column]
    missing = [value for value, number in occurrences.items() if number == everywhere and value not in (profile.counts or {})]
    if not missing:
        return {}
    former = [earlier.counts or {} for earlier in reference.of(profile.column)]
    total = sum(sum(counts.values()) for counts in former)
    shares = {value: sum(counts.get(value, 0) for counts in former) / total for value in missing}
    return {value: share for value, share in sorted(shares.items(), key=lambda item: -item[1]) if share >= _FREQUENT}
