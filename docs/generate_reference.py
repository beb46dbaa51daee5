"""Writes `docs/reference-yaml.md` from the pydantic models of the components: `.venv/bin/python docs/generate_reference.py`.

Types and defaults come from the models; the meaning of each field is written here. `tests/unit/test_documentation.py` fails
when the page is not what this script writes, so run it after a change of a model.
"""

import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mlops_assets.components.dbt_models import DbtModelsAttributes, DbtPartitions
from mlops_assets.feature_store.registry import FeatureViewMeta
from mlops_assets.schema.metric_names import metric_names
from mlops_assets.schema.problem import PROBLEMS
from mlops_assets.schema.solution import (
    Candidate,
    DataQuality,
    DatasetChecks,
    Drift,
    ErrorCost,
    FeatureSource,
    Gates,
    Monitoring,
    Partitions,
    Performance,
    Preprocessing,
    Retraining,
    Search,
    Segments,
    Serving,
    Solution,
    Space,
    Spine,
    Step,
    ThresholdRule,
    Training,
)
from mlops_assets.schema.source import Column, DeliveryComparison, Query, RawTable, Source

PAGE = Path(__file__).parent / "reference-yaml.md"

COMPONENTS: dict[str, tuple[type[BaseModel], ...]] = {
    "mlops_assets.components.raw_tables.RawTables": (Source, RawTable, Column, Query, DeliveryComparison, Partitions),
    "mlops_assets.components.dbt_models.DbtModels": (DbtModelsAttributes, DbtPartitions, FeatureViewMeta),
    "mlops_assets.components.ml_solution.MLSolution": (
        Solution,
        Spine,
        FeatureSource,
        Training,
        Step,
        Preprocessing,
        Search,
        Candidate,
        Space,
        ThresholdRule,
        ErrorCost,
        Segments,
        DatasetChecks,
        Gates,
        Serving,
        Monitoring,
        Drift,
        Performance,
        DataQuality,
        Retraining,
    ),
}
"""The components that a `defs.yaml` may name, with the models of their attributes; a model is described once."""

MEANINGS = {
    "Source.owners": "Who answers for the tables: e-mail addresses or `team:<name>`. Shown in Dagster.",
    "Source.tables": "The tables by name. A table becomes the asset and the lake table `raw.<name>`.",
    "RawTable.description": "What the table holds.",
    "RawTable.columns": "The columns to keep, by their names in the lake. Source columns that are not listed are not loaded.",
    "RawTable.files": "Paths beside the YAML file, URLs, or `package:<installed package>/<path>`. A packed file is unpacked.",
    "RawTable.query": "A query on another database, instead of `files`.",
    "RawTable.format": "Format of `files`, required with them.",
    "RawTable.null_strings": "Texts that mean null; in a CSV file the empty text does, too.",
    "RawTable.options": "Options of the format, such as `delim`: [how a source is read](data-and-features.md#how-a-source-is-read).",
    "RawTable.partitions": "Time partitions. Left out, the table is replaced as a whole.",
    "RawTable.key": "The columns that identify a row. Checked by `duplicates`.",
    "RawTable.minimum_rows": "The least rows of each partition (unpartitioned: of the table). Checked by `row_count`.",
    "RawTable.maximum_reject_share": "The largest share of rows that may be rejected. Checked by `rejected_rows`.",
    "RawTable.maximum_outside_share": "The largest share of rows with a value outside its range that is only a warning. Checked by `ranges`.",
    "Column.type": "Type in the lake. A value that cannot become it is a reason to reject the row.",
    "Column.description": "What the column holds; unit and time zone belong here.",
    "Column.source": "Name of the column in the source, where it is another one.",
    "Column.optional": "Files may lack the column; it is null in their rows.",
    "Column.expression": "SQL over the columns before it that computes the column; left out, it is read from the source.",
    "Column.required": "A row without a value is rejected.",
    "Column.minimum": "Least value. Checked by `ranges`; a value outside is kept.",
    "Column.maximum": "Greatest value. Checked by `ranges`; a value outside is kept.",
    "Column.accepted": "The values that may occur. Checked by `ranges`; another value is kept.",
    "RawTable.comparison": "How a delivery is compared with those before it. Checked by `delivery`.",
    "DeliveryComparison.enabled": "Whether deliveries are compared.",
    "DeliveryComparison.partitions": "With how many partitions before it a partition is compared, at most.",
    "DeliveryComparison.minimum_partitions": "With how many at least; a table without partitions is compared with its last version.",
    "DeliveryComparison.notable": "The move of the quantiles of a column that is a warning, in the units above.",
    "DeliveryComparison.gross": "The move that blocks, if it is to where no value was before.",
    "DeliveryComparison.scale": "By which factor the spread within a partition may leave what it ever was.",
    "DeliveryComparison.ignore": "Columns that are not compared.",
    "Query.database": "Kind of the other database.",
    "Query.url_variable": "Name of the environment variable that holds the connection string.",
    "Query.sql": "The query, in that database's SQL. `{start}` and `{end}` become the ISO dates of the range, end exclusive.",
    "Partitions.column": "The DATE column that holds the partition: in a source a column of type `date`, in a solution a column of the spine.",
    "Partitions.start": "First day.",
    "Partitions.end": "Day after the last one; left out, the partitions go on to today.",
    "Partitions.cadence": "Length of a partition. Its key is its first day; weeks begin on Monday.",
    "Partitions.freshness": "Time without a new materialization after which Dagster shows the table, of a solution its predictions, as stale. "
    "None: never.",
    "Partitions.time_zone": "The time zone of the dates, such as `America/New_York`: a training date begins at its midnight.",
    "DbtModelsAttributes.project": "Folder of the dbt project, from the root of the repository.",
    "DbtModelsAttributes.select": "`tag:<name>`: the models and seeds with that tag become assets.",
    "DbtModelsAttributes.partitions": "Partitions of the incremental models; tables, views and seeds have none.",
    "DbtPartitions.start": "First day.",
    "DbtPartitions.end": "Day after the last one; left out, the partitions go on to today.",
    "DbtPartitions.cadence": "Length of a partition.",
    "FeatureViewMeta.entity": "Columns that identify the thing described. The spine must have columns of these names.",
    "FeatureViewMeta.event_timestamp": "Column with the moment from which a row's values are known; left out, they hold at all times.",
    "FeatureViewMeta.freshness_days": "Values older than this at prediction time count as missing; left out, no limit.",
    "FeatureViewMeta.refresh_days": "Days without a materialization after which the view counts as stale.",
    "FeatureViewMeta.online": "Whether the view belongs into the online store.",
    "FeatureViewMeta.owner": "Who answers for it; left out, `meta.owner`.",
    "FeatureViewMeta.description": "What the view holds; left out, the description of the model.",
    "FeatureViewMeta.version": "May only repeat the dbt version of the model, 1 for a model without versions.",
    "Solution.name": "Name of the solution: prefix of its assets, schema of its tables, its group, its model in MLflow.",
    "Solution.description": "What is predicted, and when.",
    "Solution.owners": "Who answers for it: e-mail addresses or `team:<name>`.",
    "Solution.problem": "Kind of problem.",
    "Solution.partitions": "Partitions of the predictions and outcomes; a training date is one of these keys too.",
    "Solution.spine": "Who is predicted, when, and what happened.",
    "Solution.features": "What the model reads, in the order of its columns.",
    "Solution.limitations": "What the model should not be used for, and what is known to be wrong with it. Written into its model card.",
    "Solution.training": "How a model is fitted.",
    "Solution.segments": "Models of their own for some rows, besides the solution's.",
    "Solution.checks": "What the training dataset must hold before anything is fitted.",
    "Solution.gates": "What a candidate must reach before it is deployed.",
    "Solution.serving": "Which channels answer, and what a challenger may do.",
    "Solution.monitoring": "How predictions are watched.",
    "Solution.retraining": "When it is trained again.",
    "Retraining.bad_windows": "How many of how many last monitoring windows of a version must be bad.",
    "Retraining.cooldown": "Span after a training date in which no other training follows, whatever came of the first.",
    "Retraining.max_age": "Age of a model, from its training date, that is a reason by itself; none: no age is.",
    "Retraining.minimum_new_rows": "The least rows whose labels became known since the last training.",
    "Spine.model": "Name of the dbt model with one row a prediction.",
    "Spine.key": "Its column that identifies the row.",
    "Spine.prediction_time": "Its column with the moment of prediction. Features count as known at this moment.",
    "Spine.label": "Its column with what happened; null while unknown. Binary: 0 and 1, or boolean.",
    "Spine.label_time": "Its column with the moment at which the label became known.",
    "FeatureSource.view": "Name of a feature view: a dbt model with `meta.feature_view`.",
    "FeatureSource.version": "Version of the view; left out, the newest.",
    "FeatureSource.columns": "Features of the view to use; left out, all.",
    "FeatureSource.accepted_lag": "How old its values may be before the check `fresh_features` warns; left out, the view's `freshness_days`.",
    "FeatureSource.request": "Columns of the spine that the caller knows at prediction time, instead of a `view`.",
    "FeatureSource.derived": "Name -> SQL expression over the columns of `request`, instead of a `view`.",
    "Training.window": "Span before the training date whose rows are used. A duration: `14d`, `8w`, `6m`, `2y`.",
    "Training.holdout": "The last part of the window, kept for evaluation. A duration.",
    "Training.metric": "The metric that the `baseline` gate and the slice plots use.",
    "Training.estimator": "The model.",
    "Training.preprocessing": "Transformers in front of the model.",
    "Training.seed": "Seed of everything random.",
    "Training.search": "A search for a better estimator or better parameters; none: `estimator` is fitted as it is.",
    "Training.folds": "Parts in time of the second half of the training rows, each predicted by a model of the rows before it. "
    "For a search, a calibration and a chosen threshold.",
    "Training.sample_weight": "Column of the spine with the weight of a training row, 0 or more. Metrics stay unweighted.",
    "Training.class_weight": "`balanced`: every class weighs the same in training, however rare it is.",
    "Training.calibration": "Binary: bends the scores so that they are probabilities, as out-of-fold predictions show them to be.",
    "Training.decision_threshold": "Binary: the score from which the predicted label is 1, or how to choose it.",
    "Search.trials": "How many configurations are tried, those of an interrupted run included. 0: no search.",
    "Search.candidates": "The estimators that are tried, besides `training.estimator` as it is.",
    "Search.seconds": "No trial begins after so much time was spent on trials.",
    "Search.pruning": "Whether a trial that is worse than the median of the others after a fold is given up.",
    "Search.jobs": "How many trials run at once; they share the processors.",
    "Candidate.type": "Import path of a scikit-learn compatible class.",
    "Candidate.parameters": "Arguments of its constructor that stay fixed.",
    "Candidate.space": "Arguments of its constructor that the search chooses.",
    "Space.low": "The least value.",
    "Space.high": "The greatest value.",
    "Space.log": "Whether values are spread evenly on a logarithmic scale.",
    "Space.choices": "The values, instead of a range.",
    "ThresholdRule.maximize": "The metric to be greatest.",
    "ThresholdRule.cost": "The cost to be least, instead of a metric.",
    "ErrorCost.false_positive": "Of a predicted 1 that was 0.",
    "ErrorCost.false_negative": "Of a predicted 0 that was 1.",
    "Step.type": "Import path of a scikit-learn compatible class.",
    "Step.parameters": "Arguments of its constructor.",
    "Preprocessing.numeric": "Transformers of the numeric features, in order. Left out: what suits the estimator. Empty: none.",
    "Preprocessing.categorical": "The same for the categorical features.",
    "Segments.column": "A request column or entity key, text or whole number: known before any feature is looked up.",
    "Segments.values": "The values that may get a model: letters, digits, `_` and `-`.",
    "DatasetChecks.minimum_rows": "The least training rows. Checked by `row_count`.",
    "DatasetChecks.maximum_missing": "The largest share of missing values of a feature. Checked by `missing`.",
    "DatasetChecks.maximum_label_correlation": "The largest absolute correlation of a numeric feature with the label (`leakage_guard`).",
    "DatasetChecks.label_rate": "Least and greatest mean of the label, in training rows and hold-out alike. Checked by `label_rate`.",
    "Gates.floor": "Metric -> the value it must reach on the hold-out (an upper bound where smaller is better).",
    "Gates.against_champion": "Metric -> by how much the candidate may be worse than the champion on the same rows. "
    "A negative number asks for an improvement.",
    "Gates.slices": "Features or entity keys by which metrics are shown, with intervals.",
    "Gates.worst_slice": "Metric -> the value that every slice of `slices` with 200 rows or more must reach, unless chance explains the lack.",
    "Gates.maximum_calibration_error": "The largest expected calibration error. Binary problems only.",
    "Gates.maximum_onnx_difference": "The largest difference between the ONNX bundle and the scikit-learn pipeline on hold-out rows.",
    "Gates.maximum_latency_milliseconds": "The longest time that 99 of 100 single rows may take to be predicted.",
    "Serving.online": "Whether the online server answers for the solution.",
    "Serving.stream": "Whether the stream scorer answers for the solution.",
    "Serving.shadow": "A challenger scores every online request too; its predictions are logged, not answered.",
    "Serving.canary": "Share of the entities (0 to 1) whose online requests a challenger answers; an entity stays on its side.",
    "Serving.log_interval_seconds": "How often, in seconds, the predictions of the servers are taken into the lake, when there are any.",
    "Monitoring.window": "Length of a window.",
    "Monitoring.drift": "When drift alerts.",
    "Monitoring.performance": "When the performance alerts.",
    "Monitoring.data_quality": "When the data of a window alerts.",
    "Drift.effect_size": "The least effect of an alert, on the scale of the Jensen-Shannon distance (0 to 1) whatever the distance.",
    "Drift.false_alarms": "The probability that a window in which nothing changed has any alert; it is divided among the cells of the window.",
    "Drift.ignore": "Features that move by nature, such as the calendar: neither their drift nor their range is judged.",
    "Drift.maximum_rows": "The most rows of a hold-out that are stored, and of a window that the reconstruction error reads.",
    "Drift.maximum_share_of_features": "The largest share of features with an alert. Checked by `drift`.",
    "Performance.tolerance": "By which share of the hold-out's value a metric may be worse. Checked by `performance`.",
    "Performance.label_delay": "How long after a window its last labels come. Until then it is partial, and the estimate is judged.",
    "DataQuality.missing_increase": "By how much the missing share of a feature may exceed that of the hold-out (`missing_values`).",
    "DataQuality.maximum_unseen": "The largest share of values that training did not hold (`unseen_categories`).",
    "DataQuality.maximum_out_of_range": "The largest share of numbers outside the range that training held (`out_of_range`).",
    "DataQuality.row_count": "Least and greatest number of predictions a partition, as multiples of the hold-out's (`window_rows`).",
}

HEAD = """# YAML reference

Generated by `docs/generate_reference.py` from the pydantic models; edit the meanings there, not here.

A `defs.yaml` has two keys: `type`, the import path of a component, and `attributes`, described below. An unknown field, a wrong
type or a name that does not exist is reported with file, line and the nearest valid name, in the log and in Dagster as the asset
`configuration_error/<folder>`; the other folders still load. How the fields work together: [add a solution](add-a-solution.md).

"""


def render() -> str:
    """The text of the page. Raises KeyError naming a field that has no meaning in `MEANINGS`."""
    sections = [HEAD.rstrip()]
    for component, models in COMPONENTS.items():
        sections.append(f"## `{component}`")
        for model in models:
            sections.append(f"### {model.__name__}\n\n{_sentences(model)}\n\n{_table(model)}")
    metrics = "\n".join(f"- `{problem}`: {', '.join(f'`{name}`' for name in metric_names(problem))}" for problem in PROBLEMS)
    sections.append(f"## Metrics\n\n`training.metric`, `gates.floor` and `gates.against_champion` take these names.\n\n{metrics}")
    return "\n\n".join(sections) + "\n"


def _sentences(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _table(model: type[BaseModel]) -> str:
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = MEANINGS[f"{model.__name__}.{name}"]
        lines.append(f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {meaning} |")
    return "\n".join(lines)


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(_type(argument) for argument in arguments if argument is not type(None))
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping of name to {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return {"str": "text", "float": "number", "int": "whole number", "bool": "true or false", "Any": "any value"}.get(
        getattr(annotation, "__name__", str(annotation)), getattr(annotation, "__name__", str(annotation))
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "none"
    if isinstance(default, BaseModel):
        return "its defaults"
    if default in ([], {}, ""):
        return "empty"
    return f"`{re.sub('^(True|False)$', lambda found: found.group().lower(), str(default))}`"


if __name__ == "__main__":
    PAGE.write_text(render())
