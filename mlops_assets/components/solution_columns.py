"""Columns of the data in the tables of a solution, checked when the YAML is loaded: their names, and their types against each other.

That a column exists is checked in `ml_solution.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.schema.column_names import check_column_name, fold, repeated
from mlops_assets.schema.configuration_errors import ConfigurationError, ErrorCollector
from mlops_assets.serving.columns import type_family
from mlops_assets.stages.inputs import SolutionInputs

Path = tuple[str | int, ...]

_SLICE_SIGN = " = "
_UNWRITABLE = frozenset('"\\')
"""Characters that the decoder of requests cannot have in the name of a field."""


@dataclass(frozen=True)
class _Use:
    """A column of the data: where the YAML names it, where it is declared, and the kinds of tables that hold it."""

    name: str
    path: Path
    place: str
    tables: tuple[str, ...]


def check_columns(inputs: SolutionInputs, errors: ErrorCollector) -> None:
    """Collect an error for each column that the solution uses and that does not keep its name in every table that holds it."""
    features = list(_features(inputs))
    for use in (*_spine_columns(inputs), *features):
        sliced = ("outcomes",) if use.name in inputs.solution.gates.slices else ()
        with errors.collect():
            check_column_name(use.name, use.path, place=use.place, reserved_for=(*use.tables, *sliced))
        if unwritable := sorted(_UNWRITABLE.intersection(use.name)):
            message = (
                f"{use.place}: the column {use.name!r} has {' and '.join(unwritable)} in its name, which no request can give"
            )
            errors.add(use.path, f"{message}; rename it there")
    _check_spine(inputs, errors)
    _check_features(inputs, features, errors)
    _check_types(inputs, errors)
    views = [source.view or "" for source in inputs.solution.features]
    for position, view in enumerate(views):
        if view and view in views[:position]:
            message = f"the feature view {view} is used already: name all its columns in one place, of one version"
            errors.add(("features", position, "view"), message)
    for number, column in enumerate(inputs.solution.gates.slices):
        if _SLICE_SIGN in column:
            message = f"{column!r} has {_SLICE_SIGN!r} in its name, which parts column and value in the name of a slice"
            errors.add(("gates", "slices", number), message)


def _spine_columns(inputs: SolutionInputs) -> Iterator[_Use]:
    solution, place = inputs.solution, _spine_place(inputs)
    spine, tables = solution.spine, ("training_dataset", "predictions", "outcomes", "request")
    yield _Use(solution.partitions.column, ("partitions", "column"), place, tables)
    yield _Use(spine.key, ("spine", "key"), place, (*tables, "evaluation"))
    yield _Use(spine.prediction_time, ("spine", "prediction_time"), place, (*tables, "evaluation"))
    # The reports join the label to the predictions.
    yield _Use(spine.label, ("spine", "label"), place, ("training_dataset", "evaluation", "predictions", "outcomes"))
    yield _Use(spine.label_time, ("spine", "label_time"), place, ("training_dataset", "outcomes"))
    if weight := solution.training.sample_weight:
        yield _Use(weight, ("training", "sample_weight"), place, ("training_dataset",))
    for position, source in enumerate(solution.features):
        for chosen in inputs.views:
            if chosen.view.name == source.view:
                for key in chosen.view.entity:
                    yield _Use(key, ("features", position, "view"), place, ("training_dataset", "predictions", "request"))


def _features(inputs: SolutionInputs) -> Iterator[_Use]:
    tables = ("training_dataset", "predictions")
    for position, source in enumerate(inputs.solution.features):
        here: Path = ("features", position)
        for number, name in enumerate(source.request or []):
            yield _Use(name, (*here, "request", number), _spine_place(inputs), (*tables, "request"))
        for name in source.derived or {}:
            yield _Use(name, (*here, "derived", name), "a derived feature", tables)
        for chosen in (selected for selected in inputs.views if selected.view.name == source.view):
            for number, name in enumerate(source.columns or chosen.features):
                path = (*here, "columns", number) if source.columns else (*here, "view")
                yield _Use(name, path, f"the feature view {chosen.view.name}", tables)


def _spine_place(inputs: SolutionInputs) -> str:
    return f"the spine {inputs.spine.name}"


def _check_spine(inputs: SolutionInputs, errors: ErrorCollector) -> None:
    spine = inputs.solution.spine
    if same := repeated(inputs.spine_columns(labelled=True)):
        message = f"the spine {inputs.spine.name}: {', '.join(same)} are one name to the lake, whatever the case; rename one"
        errors.add(("spine", "model"), message)
    others = (inputs.solution.partitions.column, spine.key, spine.prediction_time, *inputs.entity)
    for field, column, further in (("label", spine.label, spine.label_time), ("label_time", spine.label_time, spine.label)):
        if column in (*others, further):
            message = f"{column} has another role already: partition, key, time, entity key and label are different columns"
            errors.add(("spine", field), message)


def _check_features(inputs: SolutionInputs, features: list[_Use], errors: ErrorCollector) -> None:
    spine = set(map(fold, inputs.spine_columns(labelled=True)))
    known: dict[str, str] = {}
    for use in features:
        if fold(use.name) in spine and use.place != _spine_place(inputs):
            errors.add(use.path, f"{use.place}: {use.name!r} is a column of the spine: rename the feature")
        if (other := known.get(fold(use.name))) is not None:
            names = ", ".join(dict.fromkeys((other, use.name)))
            errors.add(use.path[:2], f"the features {names} are named twice, or alike but for the case")
        known[fold(use.name)] = use.name


def _check_types(inputs: SolutionInputs, errors: ErrorCollector) -> None:
    """Collect an error where a column has another type than its use wants, or spine and views are joined or compared by columns whose
    stated types are not of one family.
    """
    spine, declared = inputs.spine, inputs.solution.spine
    column = inputs.solution.partitions.column
    if _family(spine, column) not in (None, "date"):
        message = f"{_typed(spine, column)}; a partition is a date: cast the column there"
        errors.add(("partitions", "column"), message)
    weight = inputs.solution.training.sample_weight
    if weight is not None and _family(spine, weight) not in (None, "number", "whole number"):
        errors.add(("training", "sample_weight"), f"{_typed(spine, weight)}; a weight is a number: cast the column there")
    moments: list[tuple[DbtModel, str, Path]] = [(spine, declared.label_time, ("spine", "label_time"))]
    for position, source in enumerate(inputs.solution.features):
        here: Path = ("features", position, "view")
        for view in (chosen.view for chosen in inputs.views if chosen.view.name == source.view):
            for key in view.entity:
                with errors.collect():
                    _check_family(
                        (spine, key), (view.model, key), here, why="they are joined, and the online store knows one of them only"
                    )
            if view.event_timestamp:
                moments.append((view.model, view.event_timestamp, here))
    for model, name, path in moments:
        with errors.collect():
            _check_family(
                (spine, declared.prediction_time), (model, name), path, why="a time without zone would be taken for UTC"
            )


def _check_family(one: tuple[DbtModel, str], other: tuple[DbtModel, str], path: Path, *, why: str) -> None:
    families = [_family(*each) for each in (one, other)]
    if None not in families and families[0] != families[1]:
        message = f"{_typed(*one)}, but {_typed(*other)}: {why}; cast one of the columns to the type of the other, in its SQL and its .yml"
        raise ConfigurationError(path, message)


def _family(model: DbtModel, column: str) -> str | None:
    """The family of a column's type; None when the model states no type."""
    data_type = model.columns.get(column)
    return type_family(data_type) if data_type else None


def _typed(model: DbtModel, column: str) -> str:
    place = f" ({model.file})" if model.file else ""
    return f"{model.name}.{column}{place} is {model.columns[column]}"
