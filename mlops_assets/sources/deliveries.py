"""Rules that compare a delivery of a raw table with the partitions before it: profiles in, findings out. Reading goes elsewhere.

A partition is compared with at most `partitions` accepted ones before it. Distances are in robust units of those: the median of each
quantile, its spread from partition to partition (median absolute deviation), and the spread within a partition.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from statistics import median

from mlops_assets.schema.source import DeliveryComparison
from mlops_assets.sources.delivery_distributions import UsualQuantiles, compare_distribution, find_swapped_columns
from mlops_assets.sources.delivery_findings import LEAST_ROWS, AcceptedPartitions, DeliveryFinding, row_count
from mlops_assets.sources.delivery_profiles import ColumnProfile
from mlops_assets.sources.delivery_values import compare_categories, compare_numbers, find_swapped_values


def compare_delivery(
    delivered: Sequence[ColumnProfile],
    before: Sequence[ColumnProfile],
    rules: DeliveryComparison,
    optional: Collection[str] = (),
) -> list[DeliveryFinding]:
    """The differences of each delivered partition from those before it, of this delivery or accepted earlier. Few before: none.

    A file may lack the `optional` columns: a partition without any value of one is no reason to stop.
    """
    accepted, arriving = _by_partition(before), _by_partition(delivered)
    reference = AcceptedPartitions(rules.partitions)
    findings = []
    for partition in sorted(accepted.keys() | arriving.keys()):
        columns = arriving.get(partition)
        differences: list[DeliveryFinding] = []
        if columns is not None and len(reference.partitions) >= rules.minimum_partitions:
            differences = list(_differences(partition, columns, reference, rules, optional))
        findings += differences
        if not any(finding.is_gross for finding in differences):
            reference.add(columns or accepted[partition])
    return findings


def _by_partition(profiles: Sequence[ColumnProfile]) -> dict[date, dict[str, ColumnProfile]]:
    partitions: dict[date, dict[str, ColumnProfile]] = defaultdict(dict)
    for profile in profiles:
        partitions[profile.partition][profile.column] = profile
    return dict(partitions)


def _differences(
    partition: date,
    columns: Mapping[str, ColumnProfile],
    reference: AcceptedPartitions,
    rules: DeliveryComparison,
    optional: Collection[str],
) -> Iterator[DeliveryFinding]:
    compared = {name: profile for name, profile in columns.items() if name not in rules.ignore}
    yield from _rows(partition, columns, reference, rules)
    yield from _missing(partition, compared, reference, optional=optional, awaited=rules.awaited)
    categorical = {name for name, profile in compared.items() if _is_categorical(profile, reference)}
    shapes: dict[str, UsualQuantiles] = {}
    for name, profile in compared.items():
        if name in categorical:
            continue
        former = [
            earlier.quantiles for earlier in reference.of(name) if earlier.quantiles is not None and earlier.known >= LEAST_ROWS
        ]
        shape = UsualQuantiles.of(former) if profile.quantiles is not None and profile.known >= LEAST_ROWS else None
        if shape is not None:
            shapes[name] = shape
    moved = {}
    for name, shape in shapes.items():
        profile = compared[name]
        if shape.distance(profile.quantiles or ()) >= rules.notable:
            moved[name] = (profile, shape)
        yield from compare_distribution(partition, profile, shape, reference.partitions_with[name], rules)
    yield from find_swapped_columns(partition, moved)
    yield from find_swapped_values(partition, [compared[name] for name in compared if name not in categorical], reference)
    for name, profile in compared.items():
        if name in categorical:
            yield from compare_categories(partition, profile, reference)
        else:
            yield from compare_numbers(partition, profile, reference, shapes.get(name))


def _is_categorical(profile: ColumnProfile, reference: AcceptedPartitions) -> bool:
    """Whether the values are compared as categories: texts, and numbers of few values, such as flags, whose quantiles jump."""
    values = reference.partitions_with[profile.column].keys() | (profile.counts or {}).keys()
    return profile.kind == "text" or (profile.kind == "number" and profile.counts is not None and len(values) <= _FEW_VALUES)


def _rows(
    partition: date, columns: Mapping[str, ColumnProfile], reference: AcceptedPartitions, rules: DeliveryComparison
) -> Iterator[DeliveryFinding]:
    rows, former = row_count(columns), [row_count(profiles) for profiles in reference.partitions]
    weekday = reference.rows_of_weekday(partition)
    least, count = min(former), len(former)
    if has_too_few_rows(rows, former, rules):
        yield DeliveryFinding(partition, None, "rows", True, f"{rows} rows, the {count} partitions before have at least {least}")
    elif len(weekday) >= _LEAST_WEEKS and _are_few(rows, int(median(weekday)), share=rules.fewest_rows):
        text = f"{rows} rows, a usual {partition:%A} has {median(weekday):.0f}"
        yield DeliveryFinding(partition, None, "rows", False, text)
    elif rows > _MANY_ROWS * max(former):
        yield DeliveryFinding(
            partition, None, "rows", False, f"{rows} rows, the {count} partitions before have at most {max(former)}"
        )


def has_too_few_rows(rows: int, former: Sequence[int], rules: DeliveryComparison) -> bool:
    """Whether a partition of so many `rows` is stopped for it, after partitions with the `former` numbers of rows."""
    # Where Sundays have a third of the rows, a holiday may have a third of a Sunday's.
    return _are_few(rows, min(former), share=min(rules.fewest_rows, min(former) / median(former)))


def _are_few(rows: int, least: int, *, share: float) -> bool:
    """Whether `rows` are fewer than the `share` of `least`. Of small partitions many have few rows by chance."""
    return rows < share * least and least - rows > _CHANCE * least**0.5


_MANY_ROWS, _CHANCE, _LEAST_WEEKS = 1.8, 3, 3
_FEW_VALUES = 12
_NOTABLE_MISSING, _GROSS_MISSING, _JOINT_MISSING = 0.25, 0.35, 0.8
_TOGETHER = 0.05


def _missing(
    partition: date,
    compared: Mapping[str, ColumnProfile],
    reference: AcceptedPartitions,
    *,
    optional: Collection[str],
    awaited: Collection[str],
) -> Iterator[DeliveryFinding]:
    """Shares of nulls. Columns that go missing together, as those of cancelled orders do, are one event and no fault of one column."""
    shares = {name: sorted(earlier.missing for earlier in reference.of(name)) for name in compared if reference.of(name)}
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
        is_expected = name in awaited or (name in optional and not compared[name].known)
        together = f", together with {', '.join(companions)}" if companions else ""
        yield DeliveryFinding(
            partition,
            name,
            "missing",
            not is_expected and (alone or increase >= _JOINT_MISSING),
            f"{compared[name].missing:.0%} missing, usually up to {usual[name]:.0%}{together}",
        )
