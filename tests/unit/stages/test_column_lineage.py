"""Column lineage of a solution's tables: each column names columns that are there, and no others."""

from dataclasses import replace

import dagster as dg
from late_inputs import INPUTS, LOAD, model

from mlops_assets.schema.column_names import OUTPUTS, SPLIT
from mlops_assets.stages.column_lineage import column_lineage, copied_lineage, frame_lineage

SPINE, VIEW = dg.AssetKey(["late", "spine"]), dg.AssetKey(["features", "load"])
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


def test_copied_rows_keep_their_columns_and_have_labels_of_the_spine() -> None:
    upstream = dg.AssetKey(["late", "predictions"])
    plain = copied_lineage(INPUTS, ["score", "distance", "was_late", "matured"], upstream=upstream, scored=False)
    assert dependencies(plain, "score") == [(upstream, "score")]
    assert dependencies(plain, "was_late") == [(SPINE, "was_late")]
    assert dependencies(plain, "matured") == [(SPINE, "known_at")]
    scored = copied_lineage(INPUTS, ["score"], upstream=upstream, scored=True)
    assert set(dependencies(scored, "score")) == {(upstream, name) for name in INPUTS.features}


def test_a_source_that_is_named_twice_is_one() -> None:
    lineage = column_lineage({"x": [(SPINE, "distance"), (VIEW, "open"), (SPINE, "distance")]})
    assert sorted(dependencies(lineage, "x")) == [(VIEW, "open"), (SPINE, "distance")]
