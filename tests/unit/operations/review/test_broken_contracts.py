"""Contracts of feature views that break between two revisions, and the live models that they break."""

from dataclasses import replace

from clinic import solution_inputs

from mlops_assets.feature_store.registry import DbtModel, FeatureRegistry, FeatureView
from mlops_assets.feature_store.usage import DeployedModel
from mlops_assets.operations.review.broken_contracts import (
    RevisionParts,
    find_broken_contracts,
    find_broken_models,
    read_parts,
)
from mlops_assets.schema.solution import FeatureSource

TYPES = {"patient": "varchar", "at": "timestamptz", "visits": "bigint", "age_group": "varchar"}


def _parts(types: dict[str, str], spine: dict[str, str] | None = None) -> RevisionParts:
    inputs = solution_inputs("daily")
    model = DbtModel("patients", "features.patients", "", types, {}, None)
    view = FeatureView(model, version=1, entity=("patient",), event_timestamp="at", freshness_days=None, owner=None)
    columns = spine or {"age": "double", "id": "varchar"}
    registry = FeatureRegistry({"patients": model, "visits": replace(inputs.spine, columns=columns)}, {("patients", 1): view})
    features = [*inputs.solution.features, FeatureSource(view="patients")]
    return read_parts({"clinic": inputs.solution.model_copy(update={"features": features})}, registry)


def _model(*features: str) -> DeployedModel:
    return DeployedModel("clinic", 7, None, views=(("patients", 1),), features=features, champion=True)


BEFORE = _parts(TYPES)


def test_an_added_column_breaks_nothing() -> None:
    after = _parts({**TYPES, "height": "double"})
    assert find_broken_contracts(BEFORE, after, {}) == []
    assert find_broken_models([_model("age", "visits")], BEFORE, after) == []


def test_a_renamed_column_breaks_the_contract_and_the_models_that_read_it() -> None:
    after = _parts({("visits_total" if name == "visits" else name): kind for name, kind in TYPES.items()})
    [broken] = find_broken_contracts(BEFORE, after, {})
    assert (broken.view, broken.version, broken.solutions) == ("patients", 1, ("clinic",))
    assert broken.problem == "visits removed or renamed (was BIGINT)"
    [model] = find_broken_models([_model("age", "visits"), _model("age", "age_group")], BEFORE, after)
    assert model.label == "clinic version 7 (champion)"
    assert "visits removed or renamed" in model.problem


def test_a_narrower_type_breaks_as_well() -> None:
    after = _parts({**TYPES, "visits": "smallint"})
    assert [broken.problem for broken in find_broken_contracts(BEFORE, after, {})] == ["visits was BIGINT, is SMALLINT"]
    assert [broken.problem for broken in find_broken_models([_model("visits")], BEFORE, after)] == [
        "it reads visits was BIGINT, is SMALLINT"
    ]


def test_what_was_recorded_when_the_view_was_built_counts_too() -> None:
    recorded = {("patients", 1): {"blood_type": "VARCHAR"}}
    [broken] = find_broken_contracts(BEFORE, BEFORE, recorded)
    assert broken.problem == "blood_type removed or renamed (was VARCHAR)"


def test_a_column_of_the_spine_that_a_model_is_asked_with() -> None:
    after = _parts(TYPES, spine={"years": "double", "id": "varchar"})
    assert [broken.problem for broken in find_broken_models([_model("age")], BEFORE, after)] == [
        "it reads age removed or renamed (was double)"
    ]


def test_a_solution_or_a_view_that_is_gone() -> None:
    gone = RevisionParts({}, FeatureRegistry({}, {}), {})
    assert [broken.problem for broken in find_broken_contracts(BEFORE, gone, {})] == ["it is gone"]
    assert [broken.problem for broken in find_broken_models([_model("age")], BEFORE, gone)] == [
        "the solution clinic is declared no more"
    ]
