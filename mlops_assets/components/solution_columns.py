"""Columns of the data in the tables of a solution, checked when the YAML is loaded: names that the platform or another column has.

That a column exists is checked in `ml_solution.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mlops_assets.column_names import check_column_name, fold, repeated
from mlops_assets.configuration import ConfigurationError
from mlops_assets.inputs import SolutionInputs

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


def check_columns(inputs: SolutionInputs) -> None:
    """Raise ConfigurationError unless each column that the solution uses keeps its name in every table that holds it."""
    features = list(_features(inputs))
    for use in (*_spine_columns(inputs), *features):
        sliced = ("outcomes",) if use.name in inputs.solution.gates.slices else ()
        check_column_name(use.name, use.path, place=use.place, reserved_for=(*use.tables, *sliced))
        if unwritable := sorted(_UNWRITABLE.intersection(use.name)):
            message = (
                f"{use.place}: the column {use.name!r} has {' and '.join(unwritable)} in its name, which no request can give"
            )
            raise ConfigurationError(use.path, f"{message}; rename it there")
    _check_spine(inputs)
    _check_features(inputs, features)
    views = [source.view or "" for source in inputs.solution.features]
    for position, view in enumerate(views):
        if view and view in views[:position]:
            message = f"the feature view {view} is used already: name all its columns in one place, of one version"
            raise ConfigurationError(("features", position, "view"), message)
    for number, column in enumerate(inputs.solution.gates.slices):
        if _SLICE_SIGN in column:
            message = f"{column!r} has {_SLICE_SIGN!r} in its name, which parts column and value in the name of a slice"
            raise ConfigurationError(("gates", "slices", number), message)


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
    views = iter(inputs.views)
    for position, source in enumerate(inputs.solution.features):
        here: Path = ("features", position)
        for number, name in enumerate(source.request or []):
            yield _Use(name, (*here, "request", number), _spine_place(inputs), (*tables, "request"))
        for name in source.derived or {}:
            yield _Use(name, (*here, "derived", name), "a derived feature", tables)
        if source.view is not None:
            chosen = next(views)
            for number, name in enumerate(chosen.features):
                path = (*here, "columns", number) if source.columns else (*here, "view")
                yield _Use(name, path, f"the feature view {chosen.view.name}", tables)


def _spine_place(inputs: SolutionInputs) -> str:
    return f"the spine {inputs.spine.name}"


def _check_spine(inputs: SolutionInputs) -> None:
    spine = inputs.solution.spine
    if same := repeated(inputs.spine_columns(labelled=True)):
        message = f"the spine {inputs.spine.name}: {', '.join(same)} are one name to the lake, whatever the case; rename one"
        raise ConfigurationError(("spine", "model"), message)
    others = (inputs.solution.partitions.column, spine.key, spine.prediction_time, *inputs.entity)
    for field, column, further in (("label", spine.label, spine.label_time), ("label_time", spine.label_time, spine.label)):
        if column in (*others, further):
            message = f"{column} has another role already: partition, key, time, entity key and label are different columns"
            raise ConfigurationError(("spine", field), message)


def _check_features(inputs: SolutionInputs, features: list[_Use]) -> None:
    spine = set(map(fold, inputs.spine_columns(labelled=True)))
    known: dict[str, str] = {}
    for use in features:
        if fold(use.name) in spine and use.place != _spine_place(inputs):
            raise ConfigurationError(use.path, f"{use.place}: {use.name!r} is a column of the spine: rename the feature")
        if (other := known.get(fold(use.name))) is not None:
            names = ", ".join(dict.fromkeys((other, use.name)))
            raise ConfigurationError(use.path[:2], f"the features {names} are named twice, or alike but for the case")
        known[fold(use.name)] = use.name
