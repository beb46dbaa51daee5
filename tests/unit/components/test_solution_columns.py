"""Names of the data beside names of the platform: what would be renamed in some table is refused at load, and nothing else is."""

from dataclasses import replace
from typing import Any

import pytest
from late_inputs import DECLARED, model

from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.feature_store.registry import DbtModel, FeatureRegistry, FeatureView
from mlops_assets.schema.column_names import RESERVED
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs

SPINE = ["id", "day", "at_time", "place", "distance", "was_late", "known_at"]


def typed(made: DbtModel) -> DbtModel:
    kinds = {"day": "date", "at_time": "timestamptz", "known_at": "timestamptz", "moment": "timestamptz", "place": "varchar"}
    return DbtModel(
        name=made.name,
        table=made.table,
        description="",
        columns={name: kinds.get(name, "bigint") for name in made.columns},
        column_descriptions=dict.fromkeys(made.columns, "described"),
        partition_column=made.partition_column,
    )


def view(name: str, *features: str) -> FeatureView:
    return FeatureView(
        model=typed(model(name, f"features.{name}", ["place", "moment", "day", *features, "_loaded_at"], "day")),
        version=1,
        entity=("place",),
        event_timestamp="moment",
        freshness_days=2,
        owner=None,
    )


def resolve(
    *views: FeatureView,
    further: tuple[str, ...] = (),
    types: dict[str, str] | None = None,
    time_zone: str | None = None,
    **changes: Any,
) -> SolutionInputs:
    """The inputs of a solution with these views and `further` columns of the spine, whose declaration is changed by `changes`."""
    spine = typed(model("spine", "late.spine", [*SPINE, *further], "day"))
    declared = {**DECLARED, "features": [*({"view": each.name} for each in views), {"request": ["distance"]}], **changes}
    registry = FeatureRegistry(
        models={"spine": replace(spine, columns={**spine.columns, **(types or {})}, time_zone=time_zone)},
        views={(each.name, each.version): each for each in views},
    )
    return resolve_inputs(Solution.model_validate(declared), registry)


@pytest.mark.parametrize("feature", sorted(RESERVED["training_dataset"] | RESERVED["predictions"]))
@pytest.mark.parametrize("spelled", [str, str.upper])
def test_a_feature_with_a_name_of_ours_is_refused(feature: str, spelled: Any) -> None:
    if feature in RESERVED["features"]:
        # Beside the features of a view these are ours, and none of its features.
        assert spelled(feature) not in resolve(view("load", "waiting", spelled(feature))).features
        return
    with pytest.raises(ConfigurationError, match=r"the feature view load: .*rename it there. Reserved in") as error:
        resolve(view("load", "waiting", spelled(feature)))
    assert error.value.path == ("features", 0, "view")
    assert spelled(feature) in error.value.message


@pytest.mark.parametrize(
    "feature", ["__mlops_row", "_load_event_timestamp", "_Other_Event_Timestamp", "*", " ", "x" * 200, "a\tb", 'a"b', "a\\b"]
)
def test_a_feature_with_a_name_of_no_column_is_refused(feature: str) -> None:
    with pytest.raises(ConfigurationError, match="the feature view load: the column"):
        resolve(view("load", feature))


@pytest.mark.parametrize(
    "feature", ["_score", "segment", "window_start", "rows", "matured", "request_id", "features", "S", "n", "select"]
)
def test_other_names_are_features(feature: str) -> None:
    assert resolve(view("load", feature)).features == ("distance", feature)


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("label", "value"),
        ("label", "channel"),
        ("key", "request_id"),
        ("key", "Features"),
        ("label_time", "matured"),
        ("label", "split"),
    ],
)
def test_a_column_of_the_spine_with_a_name_of_ours_is_refused(field: str, column: str) -> None:
    with pytest.raises(ConfigurationError, match="the spine spine: ") as error:
        resolve(further=(column,), spine={**DECLARED["spine"], field: column})  # type: ignore[dict-item]
    assert error.value.path == ("spine", field)


def test_a_slice_may_not_be_called_like_a_column_of_the_outcomes() -> None:
    with pytest.raises(ConfigurationError, match="outcomes"):
        resolve(view("load", "matured"), gates={"slices": ["matured"]})


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([view("load", "waiting"), view("other", "Waiting")], "waiting, Waiting are named twice"),
        ([view("load", "waiting", "WAITING")], "waiting, WAITING are named twice"),
        ([view("load", "waiting"), view("other", "waiting")], "waiting are named twice"),
        ([view("load", "Distance")], "'Distance' is a column of the spine"),
        ([view("load", "was_late_")], None),
        ([view("load", "Was_Late")], "'Was_Late' is a column of the spine"),
    ],
)
def test_names_that_the_lake_cannot_tell_apart_are_refused(views: list[FeatureView], message: str | None) -> None:
    if message is None:
        resolve(*views)
        return
    with pytest.raises(ConfigurationError, match=message):
        resolve(*views)


def test_a_column_has_one_role() -> None:
    with pytest.raises(ConfigurationError, match="place has another role already") as error:
        resolve(view("load", "waiting"), spine={**DECLARED["spine"], "label": "place"})  # type: ignore[dict-item]
    assert error.value.path == ("spine", "label")


def test_a_view_is_named_once() -> None:
    load = view("load", "waiting", "open")
    features = [{"view": "load", "columns": ["waiting"]}, {"view": "load", "columns": ["open"]}]
    with pytest.raises(ConfigurationError, match="load is used already"):
        resolve(load, features=features)


def retyped(declared: FeatureView, **types: str) -> FeatureView:
    return replace(declared, model=replace(declared.model, columns={**declared.model.columns, **types}, file="models/load.yml"))


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (
            {"place": "bigint"},
            r"spine\.place is varchar, but load\.place \(models/load\.yml\) is bigint: .* cast one of the columns",
        ),
        ({"moment": "timestamp"}, r"spine\.at_time is timestamptz, but load\.moment \(models/load\.yml\) is timestamp"),
        ({"moment": "date"}, r"load\.moment .* is date"),
        ({"place": "uuid"}, r"load\.place .* is uuid"),
    ],
)
def test_types_that_a_join_would_have_to_cast_are_refused(types: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        resolve(retyped(view("load", "waiting"), **types))
    assert error.value.path == ("features", 0, "view")


@pytest.mark.parametrize(
    "types", [{"place": "text"}, {"place": ""}, {"moment": "timestamp with time zone"}, {"place": "VARCHAR(10)"}]
)
def test_types_of_one_family_and_unstated_ones_are_accepted(types: dict[str, str]) -> None:
    resolve(retyped(view("load", "waiting"), **types))


@pytest.mark.parametrize(
    ("column", "kind", "path"),
    [("day", "timestamp", ("partitions", "column")), ("known_at", "timestamp", ("spine", "label_time"))],
)
def test_types_of_the_spine_are_compared_too(column: str, kind: str, path: tuple[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=f"{column} is {kind}") as error:
        resolve(view("load", "waiting"), types={column: kind})
    assert error.value.path == path


def test_dates_of_the_spine_are_those_of_the_partitions() -> None:
    tokyo = {**DECLARED["partitions"], "time_zone": "Asia/Tokyo"}
    assert resolve(time_zone="Asia/Tokyo", partitions=tokyo).solution.partitions.time_zone == "Asia/Tokyo"
    assert resolve(time_zone=None, partitions=tokyo).spine.time_zone is None
    with pytest.raises(ConfigurationError, match=r"the dates of spine are those of Asia/Tokyo: its meta.time_zone") as error:
        resolve(time_zone="Asia/Tokyo")
    assert error.value.path == ("partitions", "time_zone")
