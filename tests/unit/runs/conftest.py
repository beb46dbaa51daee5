"""The instance of the tests of runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance
from run_instances import run_instance


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with run_instance(tmp_path) as instance:
        yield instance
