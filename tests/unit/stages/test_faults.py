"""Which errors a step tries again: real errors of the libraries, in a real run."""

import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import botocore.config
import botocore.session
import dagster as dg
import duckdb
import psycopg2
import pyarrow as pa
import pytest
import requests
from dagster._core.test_utils import instance_for_test
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.lake.tables import LakeError
from mlops_assets.serving.bundle import BundleError
from mlops_assets.stages import faults
from mlops_assets.stages.faults import is_transient, step


def raised(act: Callable[[], object]) -> BaseException:
    """The error that a library raises."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whichever it is
        act()
    return caught.value


ONCE = botocore.config.Config(retries={"max_attempts": 0})

TRANSIENT = {
    "a server that does not answer": lambda: requests.get("http://127.0.0.1:1", timeout=1),
    "a database that does not answer": lambda: psycopg2.connect("host=127.0.0.1 port=1"),
    "an object store that does not answer": lambda: (
        botocore.session.get_session()
        .create_client(
            "s3", "x", endpoint_url="http://127.0.0.1:1", config=ONCE, aws_access_key_id="a", aws_secret_access_key="b"
        )
        .list_buckets()
    ),
    "no memory": lambda: [0] * (1 << 60),
    "a file that cannot be read just now": lambda: duckdb.sql("FROM read_parquet('/nowhere/x.parquet')"),
    "a command that takes too long": lambda: subprocess.run(["sleep", "5"], timeout=0.01, check=False),
}

PERMANENT = {
    "a value of another type": lambda: duckdb.sql("SELECT CAST('x' AS INTEGER)").fetchall(),
    "a column that is not there": lambda: duckdb.sql("SELECT missing FROM (SELECT 1 AS a)"),
    "a column of two lengths": lambda: pa.table({"a": [1], "b": [1, 2]}),
    "text that is no JSON": lambda: json.loads("{"),
    "a file that is not there": lambda: Path("/nowhere/x").read_text(),
    "a key that is not there": lambda: {}["x"],
}


@pytest.mark.parametrize("name", TRANSIENT)
def test_what_may_pass_on_a_second_try_is_tried_again(name: str) -> None:
    assert is_transient(raised(TRANSIENT[name]))


@pytest.mark.parametrize("name", PERMANENT)
def test_what_comes_back_unchanged_is_not(name: str) -> None:
    assert not is_transient(raised(PERMANENT[name]))


def test_the_registry_is_asked_again_when_it_is_in_trouble_and_not_when_it_refuses() -> None:
    assert is_transient(MlflowException("x", error_code=INTERNAL_ERROR))
    assert not is_transient(MlflowException("x", error_code=INVALID_PARAMETER_VALUE))


def test_what_an_error_was_raised_from_counts() -> None:
    def act() -> None:
        try:
            requests.get("http://127.0.0.1:1", timeout=1)
        except requests.ConnectionError as error:
            raise LakeError("The catalog does not answer.") from error

    assert is_transient(raised(act))


def run(error: Exception) -> tuple[int, str]:
    """How often a step with two retries ran, and what it failed with."""
    tries = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    @step
    def table(context: dg.AssetExecutionContext) -> None:
        tries.append(context.retry_number)
        raise error

    result = dg.materialize([table], instance=dg.DagsterInstance.ephemeral(), raise_on_error=False)
    [failed] = result.filter_events(lambda event: event.event_type_value == "STEP_FAILURE")
    data = failed.step_failure_data
    return len(tries), str(data.user_failure_data.description if data.user_failure_data else data.error)


@pytest.mark.parametrize("error", [EvidenceError("Evaluate it again."), BundleError("Fetch it again."), LakeError("Rebuild it.")])
def test_an_error_of_the_platform_is_its_message(error: Exception) -> None:
    assert run(error) == (1, str(error))


def test_an_error_of_a_library_is_one_sentence_with_its_class() -> None:
    tries, message = run(sqlite3.IntegrityError("UNIQUE constraint failed: a.b\nand more"))
    assert tries == 1
    assert message.startswith("IntegrityError: UNIQUE constraint failed: a.b. Trying again would give the same")


def test_a_lost_server_is_tried_again_and_shown_as_it_is() -> None:
    tries, message = run(ConnectionResetError("reset"))
    assert tries == 3
    assert "ConnectionResetError: reset" in message


def test_a_step_whose_disk_is_full_goes_on_when_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "ROOM_SECONDS", 0.01)
    # A device on which there is never room.
    disk, tries = [Path("/dev/full")] * 4 + [tmp_path / "written"], list[int]()

    @dg.asset
    @step
    def written(context: dg.AssetExecutionContext) -> None:
        tries.append(context.retry_number)
        disk[context.retry_number].write_text("x" * 10_000)

    with instance_for_test() as instance:
        result = dg.materialize([written], instance=instance)
        [retried, *_] = [
            event
            for event in instance.all_logs(result.run_id)
            if event.dagster_event_type is dg.DagsterEventType.STEP_UP_FOR_RETRY
        ]
    assert result.success
    assert tries == [0, 1, 2, 3, 4]
    assert faults.NO_ROOM in str(retried.get_dagster_event().step_retry_data.error)
