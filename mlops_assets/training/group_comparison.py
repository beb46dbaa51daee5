"""The comparison of the groups that a solution declares: of a window's predictions, and of a candidate's hold-out."""

from typing import TYPE_CHECKING

from mlops_assets.schema.solution import Solution

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.group_differences import GroupDifference
    from mlops_assets.ml.weighted_metrics import WeightedMetrics


def compare_declared_groups(solution: Solution, evaluated: "WeightedMetrics", rows: "pa.Table") -> "list[GroupDifference]":
    """Return the differences of the groups in `rows`, whose predictions and labels are `evaluated`; none without `monitoring.groups`."""
    from mlops_assets.ml.bootstrap import number_blocks
    from mlops_assets.ml.evaluation import Resampling
    from mlops_assets.ml.group_differences import comparable_metrics, compare_groups

    section = solution.monitoring.groups
    if section is None:
        return []
    blocks = number_blocks(rows.column(solution.partitions.column).to_numpy())
    return compare_groups(
        evaluated,
        rows.select(section.columns),
        references=section.reference,
        metrics=tuple(section.metrics) or comparable_metrics(solution.metrics),
        minimum_rows=section.minimum_rows,
        false_alarms=solution.monitoring.performance.false_alarms,
        resampling=Resampling(seed=solution.training.seed, slice_metrics=(), blocks=blocks),
    )
