"""Limits that scale with what is there unless the file states them."""

import pytest

from mlops_assets.schema.gates_section import DatasetChecks
from mlops_assets.schema.monitoring_section import Retraining


@pytest.mark.parametrize(("features", "least"), [(4, 50), (7, 70), (300, 1000)])
def test_the_least_training_rows_follow_the_features(features: int, least: int) -> None:
    assert DatasetChecks().least_rows(features) == least
    assert DatasetChecks(minimum_rows=12).least_rows(features) == 12


@pytest.mark.parametrize(("labelled", "least"), [(120, 12), (3, 0), (160_000, 1000)])
def test_the_least_new_rows_follow_the_rows_there_are(labelled: int, least: int) -> None:
    assert Retraining().least_new_rows(labelled) == least
    assert Retraining(minimum_new_rows=5).least_new_rows(labelled) == 5
