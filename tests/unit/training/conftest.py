"""A evaluated candidate of each problem, made once for all tests."""

import os

import pytest

# Before anything imports scikit-learn: threads that wait for each other on a busy machine cost seconds and gain nothing.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from evaluated_candidates import Candidate, evaluated_candidate

from mlops_assets.schema.problem import PROBLEMS


@pytest.fixture(scope="session", params=PROBLEMS)
def candidate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return evaluated_candidate(request.param, tmp_path_factory.mktemp("bundles"))
