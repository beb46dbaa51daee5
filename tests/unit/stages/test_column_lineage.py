"""Column lineage of a solution's tables: each column names columns that are there, and no others."""

from dataclasses import replace

import dagster as dg
from late_inputs import INPUTS, LOAD, model

from mlops_assets.schema.column_names import OUTPUTS, SPLIT
from mlops_assets.stages.column_lineage import (
    column_lineage,
    evaluation_lineage,
    frame_lineage,
    logged_lineage,
    outcome_lineage,
    report_lineage,
)

SPINE, VIEW = dg.AssetKey(["late", "spine"]), dg.AssetKey(["features", "load"])
BATCH, LOG = dg.AssetKey(["late", "predictions"]), dg.AssetKey(["late", "prediction_log"])
COLUMNS = {SPINE: set(INPUTS.spine.columns), VIEW: set(LOAD.model.columns)}
WITH_DERIVED = replace(
    INPUTS,
    spine=model("spine", "late.spine", [*INPUTS.spine.columns, "a", "two words"], "day"),
    request=("a", "distance", "two words"),
    derived={"is_far": "distance > 1000", "both": '"two words" + a*2', "neither": "'adistance' || b"},
)


def dependencies(metadata: dict[str, dg.TableColumnLineage], column: str) -> list[tuple[dg.AssetKey, str]]:
    lineage = metadata["dagster/column_lineage"]
    return [(each.asset_key, each.column_name) for each in lineage.deps_by_column[column]]


def test_a_derived_feature_comes_from_the_columns_that_it_names() -> None:
    lineage = frame_lineage(WITH_DERIVED, list(WITH_DERIVED.derived))
    assert dependencies(lineage, "is_far") == [(SPINE, "distance")]
    assert set(dependencies(lineage, "both")) == {(SPINE, "a"), (SPINE, "two words")}
    assert dependencies(lineage, "neither") == []


def test_every_column_upstream_exists() -> None:
    names = [*INPUTS.spine.columns, *INPUTS.features, *OUTPUTS, SPLIT, *(view.known_since for view in INPUTS.views)]
    lineage = frame_lineage(INPUTS, names)
    for name in names:
        found = dependencies(lineage, name)
        assert found
        assert all(column in COLUMNS[key] for key, column in found)
        assert len(set(found)) == len(found)
    assert dependencies(lineage, "waiting") == [(VIEW, "waiting")]
    assert dependencies(lineage, INPUTS.views[0].known_since) == [(VIEW, "moment")]
    # What a model says comes from all of its features.
    assert set(dependencies(lineage, "score")) == {(VIEW, "waiting"), (VIEW, "open"), (SPINE, "distance")}


def test_a_column_of_nowhere_comes_from_nothing() -> None:
    assert dependencies(frame_lineage(INPUTS, ["_loaded_at"]), "_loaded_at") == []


def test_rows_of_the_training_dataset_keep_their_columns() -> None:
    dataset = dg.AssetKey(["late", "training_dataset"])
    lineage = evaluation_lineage(INPUTS, ["training_date", "model_version", "id", "was_late", "score"])
    assert dependencies(lineage, "was_late") == [(dataset, "was_late")]
    assert dependencies(lineage, "training_date") == [(dataset, "training_date")]
    assert dependencies(lineage, "model_version") == []
    assert set(dependencies(lineage, "score")) == {(dataset, name) for name in INPUTS.features}


def test_outcomes_come_from_whoever_predicted_and_from_the_label_of_the_spine() -> None:
    lineage = outcome_lineage(INPUTS, ["score", "was_late", "known_at", "matured"])
    assert set(dependencies(lineage, "score")) == {(BATCH, "score"), (LOG, "score")}
    assert dependencies(lineage, "was_late") == [(SPINE, "was_late")]
    assert dependencies(lineage, "known_at") == [(SPINE, "known_at")]
    assert set(dependencies(lineage, "matured")) == {(SPINE, "was_late"), (SPINE, "known_at")}


def test_what_a_server_saw_comes_from_the_views_and_the_rest_with_the_request() -> None:
    lineage = logged_lineage(INPUTS, ["waiting", "distance", "id", "score"])
    assert dependencies(lineage, "waiting") == [(VIEW, "waiting")]
    assert dependencies(lineage, "distance") == dependencies(lineage, "id") == []
    assert {key for key, _ in dependencies(lineage, "score")} == {VIEW}


def test_a_measure_of_a_report_comes_from_all_that_is_measured() -> None:
    lineage = report_lineage(INPUTS, ["window_start", "model_version", "value"], window="window_start")
    assert set(dependencies(lineage, "window_start")) == {(BATCH, "day"), (LOG, "day")}
    assert set(dependencies(lineage, "model_version")) == {(BATCH, "model_version"), (LOG, "model_version")}
    measured = set(dependencies(lineage, "value"))
    assert {(BATCH, "waiting"), (LOG, "waiting"), (LOG, "score"), (dg.AssetKey(["late", "outcomes"]), "was_late")} < measured
    # A binary problem has no column `value`.
    assert not any(name == "value" for _, name in measured)


def test_a_source_that_is_named_twice_is_one() -> None:
    lineage = column_lineage({"x": [(SPINE, "distance"), (VIEW, "open"), (SPINE, "distance")]})
    assert sorted(dependencies(lineage, "x")) == [(VIEW, "open"), (SPINE, "distance")]
