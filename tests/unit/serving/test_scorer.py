"""The scorer answers what `Bundle.score` answers for the same values, and says where each view's values come from."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bundles import NOON, PLANES, fit_bundle, fit_flights, load, push_planes
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.matrix import FeatureSchema, with_origins
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.online_store.store import OnlineStore, UnknownOnlineViewError
from mlops_assets.online_store.values import Flag, ViewValues
from mlops_assets.schema.problem import PROBLEMS, Problem
from mlops_assets.serving.requests import RequestDecoder, RequestError, Row
from mlops_assets.serving.scorer import ScoredRow, Scorer

ROW = {"flight_id": "f1", "tailnum": "N1", "carrier": "AA", "distance": 1500, "predicted_at": NOON.isoformat()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> OnlineStore:
    store = LmdbStore(tmp_path_factory.mktemp("online_store"))
    push_planes(store)
    return store


@pytest.fixture(scope="module")
def scorers(store: OnlineStore, tmp_path_factory: pytest.TempPathFactory) -> dict[Problem, Scorer]:
    folder = tmp_path_factory.mktemp("bundles")
    return {problem: Scorer(load(fit_flights(problem).write(folder / problem)), store) for problem in PROBLEMS}


def rows_of(scorer: Scorer, rows: list[dict[str, Any]]) -> list[Row]:
    decoded = RequestDecoder(scorer.bundle.contract).decode(json.dumps(rows).encode(), NOON)
    assert isinstance(decoded, list)
    return decoded


def one(scorer: Scorer, **changes: Any) -> ScoredRow:
    [scored] = scorer.score(rows_of(scorer, [ROW | changes]))
    return scored


HOSTILE = st.fixed_dictionaries(
    {
        "flight_id": st.text(
            st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]), min_size=1, max_size=9
        ),
        "tailnum": st.none()
        | st.sampled_from(PLANES)
        | st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=9),
        "carrier": st.none()
        | st.sampled_from(["AA", "UA", ""])
        | st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"])),
        "distance": st.none() | st.integers(-(2**31), 2**31 - 1),
    },
    optional={
        "features": st.fixed_dictionaries(
            {},
            optional={
                "mean_delay": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
                "is_far": st.none() | st.booleans(),
                "home": st.none() | st.sampled_from(["EWR", "elsewhere"]),
            },
        )
    },
)


@settings(max_examples=examples(60))
@given(rows=st.lists(HOSTILE, min_size=1, max_size=5))
@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_numbers_are_those_of_the_bundle(
    scorers: dict[Problem, Scorer], problem: Problem, rows: list[dict[str, Any]]
) -> None:
    scorer = scorers[problem]
    scored = scorer.score(rows_of(scorer, rows))
    types = {"distance": pa.int32(), "is_far": pa.bool_(), "mean_delay": pa.float64(), "flights": pa.int64()}
    table = pa.table(
        {
            name: pa.array([each.features[name] for each in scored], types.get(name, pa.string()))
            for name in scorer.bundle.contract.feature_schema.names
        }
    )
    expected = scorer.bundle.score(table)
    for name in expected.column_names:
        assert [getattr(each.outputs, name) for each in scored] == expected[name].to_pylist()
    assert [each.key for each in scored] == [row["flight_id"] for row in rows]
    alone = [scorer.score([row])[0].outputs for row in rows_of(scorer, rows)]
    for each, together in zip(alone, scored, strict=True):
        np.testing.assert_allclose(
            each.score or each.value or 0, together.outputs.score or together.outputs.value or 0, rtol=1e-6
        )


def test_features_are_looked_up_derived_and_overridden(scorers: dict[Problem, Scorer]) -> None:
    scorer = scorers["regression"]
    found = one(scorer)
    assert found.features == {"distance": 1500, "is_far": True, "mean_delay": 0.5, "flights": 3, "carrier": "AA", "home": "EWR"}
    assert found.views == {
        "planes": ViewValues(version=1, flag=Flag.OK, snapshot=7, event_timestamp=NOON - timedelta(hours=2)),
    }
    assert found.entity == {"tailnum": "N1"}
    given_by_hand = one(scorer, features={"mean_delay": 9.0, "is_far": False})
    assert given_by_hand.features == found.features | {"mean_delay": 9.0, "is_far": False}
    assert given_by_hand.views == found.views
    assert given_by_hand.outputs != found.outputs
    every = {"mean_delay": None, "flights": 1, "home": "JFK"}
    supplied = one(scorer, features=every)
    assert supplied.features == found.features | every
    assert supplied.views == {"planes": ViewValues(version=1, flag=Flag.REQUEST)}


@pytest.mark.parametrize(
    ("change", "flag", "known"),
    [
        ({"tailnum": "N4"}, "missing", None),
        ({"tailnum": None}, "wrong_key", None),
        ({"predicted_at": (NOON + timedelta(days=8)).isoformat()}, "stale", NOON - timedelta(hours=2)),
    ],
)
def test_what_is_not_known_is_null_and_flagged(
    scorers: dict[Problem, Scorer], change: dict[str, Any], flag: str, known: Any
) -> None:
    scored = one(scorers["binary_classification"], **change)
    assert (scored.views["planes"].flag, scored.views["planes"].event_timestamp) == (flag, known)
    assert {scored.features[name] for name in ("mean_delay", "flights", "home")} == {None}
    assert scored.outputs.score is not None


def test_values_from_after_the_prediction_time_are_used_and_flagged(scorers: dict[Problem, Scorer]) -> None:
    scored = one(scorers["regression"], predicted_at=(NOON - timedelta(hours=3)).isoformat())
    assert (scored.views["planes"].flag, scored.features["flights"]) == ("newer", 3)


def test_each_row_is_evaluated_at_its_own_time(scorers: dict[Problem, Scorer]) -> None:
    scorer = scorers["regression"]
    rows = [ROW, ROW | {"predicted_at": (NOON + timedelta(days=8)).isoformat()}]
    assert [each.views["planes"].flag for each in scorer.score(rows_of(scorer, rows))] == ["ok", "stale"]
    assert scorer.score([]) == []


def test_without_a_finite_answer_the_row_is_named(scorers: dict[Problem, Scorer], monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorers["regression"]
    monkeypatch.setattr(type(scorer.bundle), "predict", lambda *_: np.array([[1.0], [np.nan]], dtype=np.float32))
    with pytest.raises(RequestError, match="row 1: the model has no finite answer"):
        scorer.score(rows_of(scorer, [ROW, ROW]))


def test_a_store_without_the_view_is_an_error(tmp_path: Path) -> None:
    scorer = Scorer(load(fit_flights("regression").write(tmp_path / "1")), LmdbStore(tmp_path / "store"))
    with pytest.raises(UnknownOnlineViewError, match="planes version 1 is not in the online store"):
        one(scorer)


EPOCH = 1_700_000_000


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """A model that tells even from odd epoch seconds, which float32 counts in steps of 128."""
    values = EPOCH + np.arange(400)
    table = pa.table({"second": values, "size": np.full(400, 0.5)})
    schema = with_origins(FeatureSchema(numeric=("second", "size"), categorical=()), table)
    fitted = fit_bundle(
        table,
        (values % 2).astype(np.float64),
        schema=schema,
        problem="regression",
        estimator=PipelineStep("sklearn.tree.DecisionTreeRegressor", {}),
        requests=[{"id": "a", "predicted_at": NOON.isoformat(), "second": EPOCH, "size": 0.5}],
        request_columns=[{"name": "second", "type": "bigint"}, {"name": "size", "type": "double"}],
    )
    folder = tmp_path_factory.mktemp("seconds")
    return Scorer(load(fitted.write(folder / "1")), LmdbStore(folder / "store"))


def test_epoch_seconds_are_told_apart_in_every_channel(seconds: Scorer) -> None:
    # Those of training, and those far outside: one rule for requests and tables.
    values = [*range(EPOCH, EPOCH + 400), 0, -(2**62), 2**62, EPOCH + 2**24 + 1, EPOCH + 400]
    rows = [{"id": str(value), "predicted_at": NOON.isoformat(), "second": value, "size": 0.5} for value in values]
    answered = [scored.outputs.value for scored in seconds.score(rows_of(seconds, rows))]
    batch = seconds.bundle.score(pa.table({"second": pa.array(values, pa.int64()), "size": [0.5] * len(values)}))
    assert answered == batch["value"].to_pylist()
    assert answered[:400] == [float(value % 2) for value in range(400)]
    assert seconds.bundle.contract.origins == {"second": float(EPOCH + 199)}


def test_an_unknown_category_is_named_by_its_feature(scorers: dict[Problem, Scorer]) -> None:
    scorer = scorers["binary_classification"]
    known = next(feature for feature in scorer.bundle.contract.features if feature.name == "carrier")
    assert list(one(scorer, carrier=known.categories[0]).unseen) == []
    assert list(one(scorer, carrier=None).unseen) == []
    assert list(one(scorer, carrier="nobody").unseen) == ["carrier"]


def test_probabilities_of_several_classes_have_their_names(scorers: dict[Problem, Scorer]) -> None:
    several = scorers["multiclass_classification"]
    scored = one(several)
    assert list(scored.classes) == list(several.bundle.contract.classes or ())
    assert len(scored.classes) == len(scored.outputs.probabilities or ())
    record = scored.record(solution="a", channel="online", role="champion", answered=True, request_id="1", caller=None)
    assert list(record.classes) == list(scored.classes)
    assert list(one(scorers["binary_classification"]).classes) == []
