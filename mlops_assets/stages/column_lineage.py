"""Dagster's column lineage: the upstream columns that each column of a table is computed from.

A column has the columns that its value is computed from, and none where the value is a constant of the step, such as the version of the
model. What cannot be told apart counts: the lineage may name too much, and does not name too little.
"""

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from mlops_assets.core.keys import OUTCOMES, PREDICTION_LOG, PREDICTIONS, SEGMENT, TRAINING_DATASET
from mlops_assets.schema.column_names import (
    CHANNEL,
    MATURED,
    MODEL_VERSION,
    OUTPUTS,
    PREDICTION_ID,
    SPLIT,
    TRAINING_DATE,
    VIEW_FLAGS,
)
from mlops_assets.schema.problem import Problem
from mlops_assets.stages.inputs import SolutionInputs

Source = tuple[dg.AssetKey, str]
"""A column of another asset."""

Sources = Mapping[str, Sequence[Source]]
"""Column -> the columns of other assets that it is computed from."""


_OUTPUTS: Mapping[Problem, tuple[str, ...]] = {
    "binary_classification": ("score", "predicted_label"),
    "multiclass_classification": ("score", "predicted_label", "probabilities"),
    "regression": ("value",),
}
"""The columns that a model adds to a table, by its problem."""


def column_lineage(sources: Sources) -> dict[str, dg.TableColumnLineage]:
    """The metadata of a materialization that holds `sources`, each once: a request column may be a feature and be in a derived one."""
    deps = {
        column: [dg.TableColumnDep(asset_key=key, column_name=name) for key, name in dict.fromkeys(of_column)]
        for column, of_column in sources.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps)}


def frame_lineage(inputs: SolutionInputs, columns: Iterable[str]) -> dict[str, dg.TableColumnLineage]:
    """The lineage of a table of rows of the spine with their features, and what a model makes of them."""
    spine, spine_section = inputs.spine_key, inputs.solution.spine
    of_views = _view_sources(inputs)
    sources = {name: [(spine, name)] for name in inputs.spine.columns} | _derived_sources(inputs) | of_views
    features = [source for name in inputs.features for source in sources[name]]
    prediction_time = (spine, spine_section.prediction_time)
    times = [prediction_time, (spine, spine_section.label_time)]
    sources |= dict.fromkeys(OUTPUTS, features) | dict.fromkeys((TRAINING_DATE, SPLIT), times)
    sources |= {PREDICTION_ID: [(spine, spine_section.key)], VIEW_FLAGS: [prediction_time, *_all(of_views)]}
    return column_lineage({name: sources.get(name, ()) for name in columns})


def logged_lineage(inputs: SolutionInputs, columns: Iterable[str]) -> dict[str, dg.TableColumnLineage]:
    """The lineage of a table of what servers predicted: the values of the views, by way of the online store, and what a model made of them.

    All else came with the request, which is no table.
    """
    of_views = _view_sources(inputs)
    sources = of_views | dict.fromkeys((*OUTPUTS, VIEW_FLAGS), _all(of_views))
    return column_lineage({name: sources.get(name, ()) for name in columns})


def evaluation_lineage(inputs: SolutionInputs, columns: Iterable[str]) -> dict[str, dg.TableColumnLineage]:
    """The lineage of a table of scored rows of the training dataset."""
    dataset, segments = inputs.key(TRAINING_DATASET), inputs.solution.segments
    features = [(dataset, name) for name in inputs.features]
    sources: dict[str, Sequence[Source]] = {MODEL_VERSION: (), **dict.fromkeys(OUTPUTS, features)}
    if segments:
        sources[SEGMENT] = [(dataset, segments.column)]
    return column_lineage({name: sources.get(name, [(dataset, name)]) for name in columns})


def outcome_lineage(inputs: SolutionInputs, columns: Iterable[str]) -> dict[str, dg.TableColumnLineage]:
    """The lineage of a table of predictions, whoever made them, with the labels of the spine."""
    spine, spine_section = inputs.spine_key, inputs.solution.spine
    label, label_time = (spine, spine_section.label), (spine, spine_section.label_time)
    sources = {spine_section.label: [label], spine_section.label_time: [label_time], MATURED: [label, label_time]}
    return column_lineage({name: sources.get(name, _predicted(inputs, name)) for name in columns})


def report_lineage(inputs: SolutionInputs, columns: Iterable[str], *, window: str) -> dict[str, dg.TableColumnLineage]:
    """The lineage of a report on windows, whose column `window` is their first day.

    Its rows hold names of columns as values, so that every measure comes from all that is measured: the features, what the models made
    of them, and the labels, in the windows and in the hold-outs of the versions.
    """
    label = inputs.solution.spine.label
    outputs = _OUTPUTS[inputs.solution.problem]
    names = (PREDICTION_ID, CHANNEL, *inputs.features, *outputs)
    measured = [source for name in names for source in _predicted(inputs, name)]
    measured.append((inputs.key(OUTCOMES), label))
    measured += [(dependency.asset_key, name) for dependency in inputs.evaluations for name in (label, *outputs)]
    sources = {
        window: _predicted(inputs, inputs.solution.partitions.column),
        MODEL_VERSION: _predicted(inputs, MODEL_VERSION),
    }
    return column_lineage({name: sources.get(name, measured) for name in columns})


def _predicted(inputs: SolutionInputs, name: str) -> list[Source]:
    """A column of the predictions, those of the batch and those of the servers."""
    return [(inputs.key(stage), name) for stage in (PREDICTIONS, PREDICTION_LOG)]


def _view_sources(inputs: SolutionInputs) -> dict[str, list[Source]]:
    """The columns that come from feature views: features, and the times since which they were known."""
    sources: dict[str, list[Source]] = {}
    for chosen in inputs.views:
        view = inputs.view_key(chosen)
        sources |= {feature: [(view, feature)] for feature in chosen.features}
        if chosen.known_since and chosen.view.event_timestamp:
            sources[chosen.known_since] = [(view, chosen.view.event_timestamp)]
    return sources


def _derived_sources(inputs: SolutionInputs) -> dict[str, list[Source]]:
    """The derived features: the request columns that their expressions name."""
    from sqlglot import exp, parse_one

    spine = inputs.spine_key
    columns = {name.lower(): name for name in inputs.request}
    return {
        name: [
            (spine, columns[column.name.lower()])
            for column in parse_one(expression, dialect="duckdb").find_all(exp.Column)
            if column.name.lower() in columns
        ]
        for name, expression in inputs.derived.items()
    }


def _all(sources: Sources) -> list[Source]:
    return [source for of_column in sources.values() for source in of_column]
