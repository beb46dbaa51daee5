"""`groups_report`: the metrics of sensitive groups in a window beside those of the others, once labels are known. One partition a window."""

from collections.abc import Iterator

from mlops_assets.lake.sql import literal, quote
from mlops_assets.monitoring.measures import Measure, MonitoredWindow, monitor
from mlops_assets.schema.metric_names import least_effect
from mlops_assets.training.candidate_evaluation import evaluated_predictions
from mlops_assets.training.group_comparison import compare_declared_groups


@monitor("No group is worse than the others by an effect that matters, beyond what chance explains.")
def groups(window: MonitoredWindow) -> Iterator[Measure]:
    """The loss of each group and metric against the others, with difference and ratio in words."""
    from mlops_assets.schema.problem import label_array

    solution = window.inputs.solution
    section, performance, spine = solution.monitoring.groups, solution.monitoring.performance, solution.spine
    assert section is not None
    label = quote(spine.label)
    rows = window.connection.execute(
        f"FROM {window.rows} WHERE {label} IS NOT NULL ORDER BY {quote(spine.prediction_time)}, {quote(spine.key)}"
    ).to_arrow_table()
    if not rows.num_rows:
        return
    labels = label_array(rows.column(spine.label), solution.problem)
    evaluated = evaluated_predictions(solution, window.version.contract, rows, labels)
    for difference in compare_declared_groups(solution, evaluated, rows):
        if difference.loss is None or difference.other_value is None or difference.error is None:
            limit, value = 0.0, None
        else:
            stated = section.maximum_difference.get(difference.metric)
            effect = least_effect(difference.metric, difference.other_value, performance.tolerance) if stated is None else stated
            limit, value = max(effect, difference.chance * difference.error), difference.loss
        yield Measure(
            subject=f"{difference.metric} where {difference.column} = {difference.group}",
            value=value,
            limit=limit,
            sentence=difference.words,
            condition=f"CAST({quote(difference.column)} AS VARCHAR) = {literal(difference.group)}",
        )
