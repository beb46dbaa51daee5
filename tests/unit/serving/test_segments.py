"""Which bundle predicts which row."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from bundles import fit_bundle, load
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.serving.bundle import Bundle, BundleError
from mlops_assets.serving.contract import Segment
from mlops_assets.serving.segments import Champions

MakeBundle = Callable[..., Bundle]


def flights(origins: list[str | None]) -> pa.Table:
    return pa.table({"distance": np.arange(len(origins), dtype=np.float64), "origin": pa.array(origins, pa.string())})


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Make a bundle of `version` whose predictions are distance times the version."""
    folder = tmp_path_factory.mktemp("bundles")

    def bundle(version: int, segment: Segment | None, labels: tuple[str, ...] = ()) -> Bundle:
        train = flights(["JFK", "EWR", "LGA", ""] * 30)
        estimator = "sklearn.linear_model.LogisticRegression" if labels else "sklearn.linear_model.LinearRegression"
        fitted = fit_bundle(
            train,
            np.resize(np.array(labels, dtype=object), 120) if labels else train["distance"].to_numpy() * version,
            schema=FeatureSchema(numeric=("distance",), categorical=("origin",)),
            problem="multiclass_classification" if labels else "regression",
            estimator=PipelineStep(estimator, {}),
            requests=[{"id": "1"}],
            version=version,
            segment=segment,
        )
        return load(fitted.write(folder / f"{version}-{len(list(folder.iterdir()))}"))

    return bundle


@pytest.fixture(scope="module")
def champions(make: MakeBundle) -> Champions:
    return Champions(
        make(1, None), (make(7, Segment(column="origin", value="JFK")), make(5, Segment(column="origin", value="EWR")))
    )


origins = st.lists(st.sampled_from(["JFK", "EWR", "LGA", "jfk", "JFK ", "", None]), max_size=30)


@settings(max_examples=examples(50), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(origins=origins)
def test_every_row_is_predicted_by_the_champion_of_its_segment(champions: Champions, origins: list[str | None]) -> None:
    table = flights(origins)
    scored = champions.score(table)
    expected = [{"JFK": 7, "EWR": 5}.get(origin or "", 1) for origin in origins]
    assert scored.column("model_version").to_pylist() == expected
    assert scored.column("value").to_pylist() == pytest.approx([row * version for row, version in enumerate(expected)], abs=1e-2)
    # One row at a time, as a server asks, the same bundle answers.
    assert [champions.of(row).contract.version for row in table.to_pylist()] == expected


def test_whole_numbers_are_segments_too(make: MakeBundle) -> None:
    champions = Champions(make(1, None), (make(2, Segment(column="day_of_week", value="7")),))
    table = flights(["JFK"] * 3).append_column("day_of_week", pa.array([7, 1, None]))
    assert champions.score(table).column("model_version").to_pylist() == [2, 1, 1]
    assert [champions.of(row).contract.version for row in table.to_pylist()] == [2, 1, 1]


def test_a_segment_whose_classes_differ_is_refused(make: MakeBundle) -> None:
    default = make(1, None, ("a", "b", "c"))
    other = make(2, Segment(column="origin", value="JFK"), ("a", "b", "d"))
    with pytest.raises(BundleError, match=r"Version 2 of example, the champion of JFK, knows other classes than version 1"):
        Champions(default, (other,))


def test_a_model_of_all_rows_is_that_of_no_segment(make: MakeBundle) -> None:
    with pytest.raises(BundleError, match="the model of no segment"):
        Champions(make(1, None), (make(2, None),))
