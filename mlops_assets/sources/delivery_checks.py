"""Checks of a delivery of a raw table, and their results on the staged rows of each partition."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from mlops_assets.core.check_rules import SCHEMA, CheckRule, Evidence, PartitionCheckResult
from mlops_assets.core.keys import table_key
from mlops_assets.schema.source import RawTable
from mlops_assets.sources import delivery_profiles as profiles
from mlops_assets.sources import table_checks as checks
from mlops_assets.sources.deliveries import compare_delivery
from mlops_assets.sources.delivery_findings import DeliveryFinding
from mlops_assets.sources.raw_delivery import ACCEPTED, Delivery

_SHOWN_DIFFERENCES = 20

DELIVERY = CheckRule(
    name="delivery",
    description="Each partition is like those before it: rows, missing values, distribution, unit, categories, times. Gross differences block.",
    blocking=True,
    evidence=Evidence(
        measured=("gross_differences", "notable_differences"), bound=("maximum_differences",), examples=("differences",)
    ),
)


def delivery_rules(table: RawTable) -> list[CheckRule]:
    """The checks of the raw table, in the order in which they are evaluated."""
    rules = [checks.ROW_COUNT, checks.REJECTED_ROWS, SCHEMA]
    if table.bounded:
        rules.append(checks.RANGES)
    if table.key:
        rules.append(checks.DUPLICATES)
    if table.comparison.enabled:
        rules.append(DELIVERY)
    return [*rules, checks.CONSTANT_COLUMNS]


def evaluate_delivery(delivery: Delivery) -> dict[str, list[dg.AssetCheckResult]]:
    """Evaluate every check on the staged rows; returns the results of each partition, of a table without partitions as `WHOLE`.

    The profiles that the check `delivery` compared stay staged until the delivery is written.
    """
    delivery.map_days()
    key, table = table_key(delivery.raw), delivery.table
    delivered = checks.DeliveredRows(delivery.connection, ACCEPTED, delivery.partition_key, delivery.keys)
    measured = checks.MeasuredRows(delivered, table, varying=_compared_columns(table))
    outcomes = [
        checks.check_row_count(key, rows=measured.rows, keys=delivery.keys, minimum=table.minimum_rows),
        checks.check_rejected_rows(
            key,
            accepted=measured.rows,
            rejected=delivery.rejected,
            maximum_share=table.maximum_reject_share,
            rejects=delivery.rejects,
        ),
        measured.check_schema(key),
    ]
    if table.bounded:
        outcomes.append(measured.check_ranges(key))
    if table.key:
        outcomes.append(checks.check_duplicates(delivered, key, columns=table.key))
    if table.comparison.enabled:
        outcomes.append(_compare(delivery, key))
    outcomes.append(measured.check_constant_columns(key))
    return {name: [_of_partition(delivery, outcome[name], name) for outcome in outcomes] for name in delivery.keys}


def _of_partition(delivery: Delivery, result: dg.AssetCheckResult, name: str) -> dg.AssetCheckResult:
    return PartitionCheckResult.from_result(result, name) if delivery.replaced else result


def _compare(delivery: Delivery, key: dg.AssetKey) -> checks.Outcomes:
    rules, partitions = delivery.table.comparison, delivery.table.partitions
    types = {name: column.type for name, column in delivery.table.columns.items() if not partitions or name != partitions.column}
    delivered = profiles.profile_delivery(
        delivery.connection,
        relation=ACCEPTED,
        types=types,
        partition_column=delivery.replaced.column if delivery.replaced else None,
        keys=delivery.keys,
        end=delivery.replaced.end if delivery.replaced else None,
    )
    if delivery.replaced:
        before = profiles.preceding_profiles(
            delivery.connection, delivery.name, before=delivery.replaced.start, partitions=rules.partitions
        )
    else:
        before = profiles.last_profile(delivery.connection, delivery.name)
        rules = rules.model_copy(update={"minimum_partitions": 1})
    optional = [name for name, column in delivery.table.columns.items() if column.optional]
    findings: dict[str, list[DeliveryFinding]] = defaultdict(list)
    for finding in compare_delivery(delivered, before, rules, optional):
        findings[finding.partition.isoformat() if delivery.replaced else checks.UNPARTITIONED].append(finding)
    return check_delivery(key, findings, keys=delivery.keys, before=len({profile.partition for profile in before}))


def check_delivery(
    key: dg.AssetKey, findings: Mapping[str, Sequence[DeliveryFinding]], *, keys: Sequence[str], before: int
) -> checks.Outcomes:
    """Whether `findings`, the differences of each partition from those before it, hold nothing notable; gross ones block.

    `before` is the number of earlier partitions that have a profile.
    """
    outcomes = {}
    for name in keys:
        of_partition = findings.get(name, ())
        gross = [finding for finding in of_partition if finding.is_gross]
        listed = [*gross, *(finding for finding in of_partition if not finding.is_gross)][:_SHOWN_DIFFERENCES]
        outcomes[name] = replace(DELIVERY, blocking=bool(gross)).result(
            key,
            passed=not of_partition,
            metadata={
                "gross_differences": len(gross),
                "notable_differences": len(of_partition) - len(gross),
                "maximum_differences": 0,
                "partitions_before": before,
                "differences": dg.MetadataValue.json([finding.evidence for finding in listed]),
            },
            description="; ".join(str(finding) for finding in listed[:3]) if of_partition else None,
        )
    return outcomes


def is_blocking(result: dg.AssetCheckResult) -> bool:
    """Whether the outcome stops the delivery."""
    return not result.passed and result.severity == dg.AssetCheckSeverity.ERROR


def with_metadata(result: dg.AssetCheckResult, **texts: str) -> dg.AssetCheckResult:
    """`result` with further texts among its evidence."""
    return _changed(result, metadata={**result.metadata, **{name: dg.MetadataValue.text(text) for name, text in texts.items()}})


def as_accepted(result: dg.AssetCheckResult, why: str) -> dg.AssetCheckResult:
    """A blocking outcome that a person took responsibility for: a warning, with the reason."""
    return _changed(with_metadata(result, accepted_because=why), severity=dg.AssetCheckSeverity.WARN)


def _changed(result: dg.AssetCheckResult, **changes: Any) -> dg.AssetCheckResult:
    changed = dg.AssetCheckResult(**{**result._asdict(), **changes})
    return PartitionCheckResult.from_result(changed, result.partition) if isinstance(result, PartitionCheckResult) else changed


def _compared_columns(table: RawTable) -> list[str]:
    """Columns that should vary within any run: not the parts of the key or the partition, which a short run holds constant."""
    fixed = {*table.key, *([table.partitions.column] if table.partitions else [])}
    return [name for name, column in table.columns.items() if name not in fixed and not column.required]
