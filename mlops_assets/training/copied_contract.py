"""Reasons why a model of another environment is not copied: what it reads otherwise than it would here, and rows that it has seen."""

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.serving.contract import Contract


def differences(contract: "Contract", inputs: SolutionInputs, rows: "pa.Table") -> list[str]:
    """What the model of `contract` reads otherwise than `inputs` and their `rows` have it here, in phrases."""
    spine, segments, found = inputs.spine, inputs.solution.segments, []
    views = inputs.view_versions
    for view in contract.feature_views:
        if view.name not in views:
            found.append(f"it reads the feature view {view.name}, which is not used here")
        elif views[view.name] != view.version:
            found.append(f"it reads {view.name} version {view.version}, here is version {views[view.name]}")
    for feature in contract.derived_features:
        if inputs.derived.get(feature.name) != feature.expression:
            found.append(f"{feature.name} is {feature.expression} there, and {inputs.derived.get(feature.name, 'nothing')} here")
    for described in contract.features:
        if described.name not in inputs.features:
            found.append(f"it reads {described.name}, which is no feature here")
        elif (here := str(rows.schema.field(described.name).type)) != described.type:
            found.append(f"{described.name} is {described.type} there, and {here} here")
    for column in (contract.key, *contract.entity_keys, *contract.request_columns):
        if (kind := spine.columns.get(column.name)) != column.type:
            found.append(f"the column {column.name} is {column.type} there, and {kind or 'missing'} here")
    of_segment = contract.segment.column if contract.segment else None
    own_segment = segments.column if segments and inputs.segment else None
    for name, there, own in (
        ("problem", contract.problem, inputs.solution.problem),
        ("key", contract.key.name, inputs.solution.spine.key),
        ("prediction time", contract.prediction_time_column, inputs.solution.spine.prediction_time),
        ("column of partitions", contract.partition_column, inputs.solution.partitions.column),
        ("time zone", contract.time_zone, inputs.solution.partitions.time_zone),
        ("column of segments", of_segment, own_segment),
    ):
        if there != own:
            found.append(f"the {name} is {there} there, and {own} here")
    return found


def seen_rows(inputs: SolutionInputs, parameters: Mapping[str, str], made_for: date, training_date: date) -> list[str]:
    """Why the gated fit may have seen rows of the hold-out of `training_date`."""
    if made_for > training_date:
        return [f"it was trained for {made_for}, and has seen rows of the hold-out of {training_date}: take a later date"]
    held_out = parameters.get("holdout")
    if inputs.solution.spine.has_time and made_for == training_date and held_out != str(inputs.solution.training.holdout):
        return [
            f"it was fitted on all but the last {held_out}, and {inputs.solution.training.holdout} are held out here: take a later date"
        ]
    return []
