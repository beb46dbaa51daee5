"""The columns of a training dataset as the dbt contracts and the solution's YAML state them."""

from mlops_assets.core.keys import TRAINING_DATE
from mlops_assets.schema.column_names import SPLIT
from mlops_assets.schema.table_columns import TableColumn
from mlops_assets.stages.inputs import SolutionInputs


def dataset_columns(inputs: SolutionInputs) -> dict[str, TableColumn]:
    """The columns of the solution's training datasets: types, nulls and accepted values as stated, no infinite number.

    A row without history in a feature view lacks its values, whatever the view's contract requires.
    """
    solution, contract = inputs.solution, inputs.spine
    spine = solution.spine
    required = contract.required | {spine.key, spine.prediction_time, spine.label, spine.label_time}
    finite = {*inputs.features, *([spine.label] if solution.problem == "regression" else [])}
    columns = {
        TRAINING_DATE: TableColumn(type="date", nullable=False),
        SPLIT: TableColumn(type="varchar", nullable=False, accepted=("earlier", "train", "holdout")),
    }
    for name in inputs.spine_columns(labelled=True):
        columns[name] = TableColumn(
            type=contract.columns.get(name) or None,
            nullable=name not in required,
            accepted=contract.accepted.get(name),
            finite=name in finite,
        )
    # The type of an expression is checked when the YAML is loaded.
    columns |= {name: TableColumn(type=None, finite=True) for name in inputs.derived}
    for chosen in inputs.views:
        model = chosen.view.model
        for name in chosen.features:
            columns[name] = TableColumn(type=model.columns.get(name) or None, accepted=model.accepted.get(name), finite=True)
        if chosen.known_since:
            columns[chosen.known_since] = TableColumn(type=model.columns.get(chosen.view.event_timestamp or "") or None)
    return columns
