"""The asset `prediction_log` on a real lake and a real NATS server: every prediction of a server is in the lake exactly once."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from late_inputs import INPUTS, SOLUTION
from nats_server import NatsServer
from prediction_records import prediction_record

from mlops_assets.clients.event_stream import PREDICTIONS, REJECTS, subject
from mlops_assets.clients.publishing import Message
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.local.state_steps import STEPS
from mlops_assets.online_store.values import Flag, ViewValues
from mlops_assets.predictions import prediction_log
from mlops_assets.predictions.all_predictions import all_predictions
from mlops_assets.predictions.outcomes import _joined
from mlops_assets.predictions.prediction_log_sensor import LoggedSolution, build_prediction_log_sensor
from mlops_assets.serving.prediction_record import Outputs, PredictionRecord, encode_record

MORNING = datetime(2020, 1, 2, 6, tzinfo=UTC)
TABLE, BATCH_TABLE, VIEW = (INPUTS.table(name) for name in ("prediction_log", "predictions", "all_predictions"))


def record(number: int, **changes: Any) -> PredictionRecord:
    fields: dict[str, Any] = {
        "key": number,
        "partition": date(2020, 1, 2),
        "prediction_time": MORNING + timedelta(minutes=number),
        "entity": {"place": f"p{number}"},
        "features": {"distance": 0.1 + number, "waiting": number, "open": None},
        "outputs": Outputs(score=0.30000001192092896, predicted_label=0),
        "views": {"load": ViewValues(version=1, flag=Flag.OK, snapshot=7, event_timestamp=MORNING)},
        "served_at": MORNING,
    }
    return prediction_record(number, **(fields | changes))


@pytest.fixture(scope="module")
def shared_lake(make_lake: Callable[[], Lake]) -> Lake:
    return make_lake()


@pytest.fixture
def lake(shared_lake: Lake) -> Lake:
    with shared_lake.connect(read_only=False) as connection:
        connection.execute("DROP SCHEMA IF EXISTS features CASCADE")
        connection.execute(f"DROP SCHEMA IF EXISTS {SOLUTION} CASCADE")
        connection.execute("CREATE SCHEMA features")
        connection.execute(f"CREATE SCHEMA {SOLUTION}")
        connection.execute(
            "CREATE TABLE features.load (place VARCHAR, moment TIMESTAMPTZ, day DATE, waiting BIGINT, open BOOLEAN, _loaded_at TIMESTAMPTZ)"
        )
        connection.execute(
            f"CREATE TABLE {SOLUTION}.spine AS SELECT i AS id, DATE '2020-01-03' AS day, TIMESTAMPTZ '2020-01-03 00:30:00+00' AS at_time, "
            "'p' || i AS place, i + 0.1::DOUBLE AS distance, i % 2 AS was_late, TIMESTAMPTZ '2020-01-03 18:00:00+00' AS known_at "
            "FROM range(100) r(i)"
        )
    return shared_lake


def publish(nats: NatsServer, *records: PredictionRecord) -> None:
    messages = [Message(subject(PREDICTIONS, SOLUTION), each.prediction_id, encode_record(each)) for each in records]
    nats.run(lambda stream: stream.publish(messages))


def ingest(lake: Lake, nats: NatsServer, instance: dg.DagsterInstance | None = None) -> dg.ExecuteInProcessResult:
    settings = Settings(home=Path("/nonexistent"), nats_url=nats.url)
    assets = [prediction_log.build_prediction_log(INPUTS)]
    return dg.materialize(assets, resources={"lake": lake, "settings": settings}, instance=instance, raise_on_error=False)


def recorded(result: dg.ExecuteInProcessResult) -> list[tuple[str | None, Any]]:
    """Partition and rows of every materialization of a run."""
    materializations = result.asset_materializations_for_node(f"{SOLUTION}__prediction_log")
    return [(each.partition, each.metadata["dagster/partition_row_count"].value) for each in materializations]


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {check.check_name: check.passed for check in result.get_asset_check_evaluations()}


def rows(lake: Lake, query: str) -> list[tuple[Any, ...]]:
    with lake.connect(read_only=True) as connection:
        return connection.execute(query).fetchall()


def die_before_acknowledging(lake: Lake, url: str) -> None:
    """What a run is that is killed between its commit and its acknowledgements."""
    from nats.aio.msg import Msg

    async def die(self: Msg) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Msg.ack = die  # type: ignore[method-assign]
    prediction_log._ACKNOWLEDGE_SECONDS = 1.0
    dg.materialize(
        [prediction_log.build_prediction_log(INPUTS)],
        resources={"lake": lake, "settings": Settings(home=Path("/nonexistent"), nats_url=url)},
    )


def test_a_prediction_is_in_the_lake_with_all_that_it_saw(lake: Lake, nats: NatsServer) -> None:
    publish(nats, record(1), record(2, features={"distance": None, "waiting": 2, "open": True}, channel="stream"))
    result = ingest(lake, nats)
    assert result.success
    assert checks(result) == {"logged_once": True, "log_accepted": True, "within_partitions": True}
    found = rows(
        lake,
        "SELECT prediction_id, channel, role, model_version, id, day, at_time, place, distance, waiting, open, score, predicted_label, "
        f"_load_event_timestamp, feature_views, view_flags, _view_snapshots, served_at FROM {TABLE} ORDER BY id",
    )
    views = ('{"load": 1}', '{"load": "ok"}', '{"load": 7}')
    first = (record(1).prediction_id, "online", "champion", 3, 1, date(2020, 1, 2), MORNING + timedelta(minutes=1), "p1", 1.1, 1)
    assert found[0] == (*first, None, 0.30000001192092896, 0, MORNING, *views, MORNING)
    assert found[1][1] == "stream"
    assert found[1][8:11] == (None, 2, True)
    [(kind,)] = rows(lake, f"SELECT typeof(score) FROM {TABLE} LIMIT 1")
    assert kind == "FLOAT"


@pytest.mark.long
def test_killed_between_commit_and_acknowledgement_a_record_is_there_once(
    lake: Lake, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(nats, *(record(number) for number in range(50)))
    process = multiprocessing.get_context("spawn").Process(target=die_before_acknowledging, args=(lake, nats.url))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert rows(lake, f"SELECT count(*) FROM {TABLE}") == [(50,)]
    publish(nats, *(record(number) for number in range(50, 60)))
    monkeypatch.setattr(prediction_log, "_ACKNOWLEDGE_SECONDS", 1.0)
    assert recorded(ingest(lake, nats)) == [("2020-01-02", 50), ("2020-01-02", 60)]
    assert rows(lake, f"SELECT count(*), count(DISTINCT prediction_id) FROM {TABLE}") == [(60, 60)]
    assert nats.run(lambda stream: stream.waiting(PREDICTIONS, SOLUTION, durable=f"lake-{SOLUTION}")) == 0


@pytest.mark.long
def test_two_runs_at_once_and_a_record_that_comes_after_the_window_add_each_once(lake: Lake, nats: NatsServer) -> None:
    publish(nats, *(record(number) for number in range(300)))
    with ThreadPoolExecutor(2) as threads:
        assert all(result.success for result in threads.map(lambda _: ingest(lake, nats), range(2)))
    # The window that the server remembers identifiers for has passed: the stream has the record twice.
    again = Message(subject(PREDICTIONS, SOLUTION), "another message id", encode_record(record(7)))
    nats.run(lambda stream: stream.publish([again]))
    assert checks(ingest(lake, nats))["logged_once"]
    assert rows(lake, f"SELECT count(*), count(DISTINCT prediction_id) FROM {TABLE}") == [(300, 300)]


@pytest.mark.long
def test_a_log_names_the_callers_that_have_a_token_of_their_own(lake: Lake, nats: NatsServer) -> None:
    publish(nats, record(1))
    assert ingest(lake, nats).success
    assert "_scored_by" not in [name for (name,) in rows(lake, f"SELECT column_name FROM (DESCRIBE {TABLE})")]
    publish(nats, record(2, caller="shop"), record(3))
    assert ingest(lake, nats).success
    named = f"SELECT id, _scored_by FROM {VIEW} ORDER BY id"
    assert rows(lake, named) == [(1, None), (2, "shop"), (3, None)]
    publish(nats, record(4))
    assert ingest(lake, nats).success
    assert rows(lake, named)[-1] == (4, None)


def test_what_is_no_prediction_is_rejected_with_the_reason_and_holds_nothing_up(lake: Lake, nats: NatsServer) -> None:
    broken = [
        b"",
        b"\xff\xfe",
        b"{}",
        encode_record(record(1))[:-5],
        encode_record(record(2, solution="another")),
        encode_record(record(3, features={"distance": "'); DROP TABLE late.spine; --"})),
        encode_record(record(4, key="not a number")),
        encode_record(record(5)).replace(b"2020-01-02", b"2020-13-02"),
    ]
    nats.run(
        lambda stream: stream.publish([Message(subject(PREDICTIONS, SOLUTION), f"b{n}", data) for n, data in enumerate(broken)])
    )
    publish(nats, record(6, features={"distance": 1, "waiting": 1, "open": False, "of another version": "x"}))
    result = ingest(lake, nats)
    assert result.success
    assert checks(result) == {"logged_once": True, "log_accepted": False, "within_partitions": True}
    assert rows(lake, f"SELECT id FROM {TABLE}") == [(6,)]
    reasons = [json.loads(message.data)["reason"] for message in nats.messages(REJECTS, SOLUTION)]
    assert len(reasons) == len(broken)
    assert any("distance" in reason and "DOUBLE" in reason for reason in reasons)
    assert any("a record of another on the subject of late" in reason for reason in reasons)
    assert rows(lake, f"SELECT count(*) FROM {SOLUTION}.spine") == [(100,)]
    assert checks(ingest(lake, nats)) == {"logged_once": True, "log_accepted": True, "within_partitions": True}


def test_a_challenger_in_the_shadow_has_a_table_of_its_own(lake: Lake, nats: NatsServer) -> None:
    shadow = record(1, prediction_id="late:online:1:challenger", role="challenger", answered=False, model_version=4)
    publish(nats, record(1), shadow)
    ingest(lake, nats)
    assert rows(lake, f"SELECT model_version, role FROM {TABLE}") == [(3, "champion")]
    assert rows(lake, f"SELECT model_version, role FROM {INPUTS.table('shadow_predictions')}") == [(4, "challenger")]


def test_a_run_records_the_partitions_whose_rows_it_brought(lake: Lake, nats: NatsServer) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        days = [date(2020, 1, 2), date(2020, 1, 2), date(2020, 3, 4), date(2019, 12, 31), date(2021, 1, 1)]
        publish(nats, *(record(number, partition=day) for number, day in enumerate(days)))
        # What is of no partition of the solution is in the table, and nothing follows it.
        first = ingest(lake, nats, instance)
        assert recorded(first) == [("2020-01-02", 2), ("2020-03-04", 1)]
        assert rows(lake, f"SELECT count(*) FROM {TABLE}") == [(5,)]
        assert recorded(ingest(lake, nats, instance)) == []
        publish(nats, record(7))
        second = ingest(lake, nats, instance)
        assert recorded(second) == [("2020-01-02", 3)]
        # What follows the log sees other content.
        before, after = (
            result.asset_materializations_for_node(f"{SOLUTION}__prediction_log")[0].tags for result in (first, second)
        )
        assert before is not None
        assert after is not None
        assert before["dagster/data_version"] != after["dagster/data_version"]


def test_the_run_that_the_sensor_asks_for_reads_inputs_that_were_materialized_by_partition(lake: Lake, nats: NatsServer) -> None:
    assets = [
        prediction_log.build_prediction_log(INPUTS),
        *(dg.AssetSpec(key, partitions_def=INPUTS.partitions) for key in INPUTS.upstream_keys),
    ]
    settings = Settings(home=Path("/nonexistent"), nats_url=nats.url)
    sensor = build_prediction_log_sensor({SOLUTION: LoggedSolution(INPUTS.partitions, 60)})
    definitions = dg.Definitions(assets, sensors=[sensor], resources={"lake": lake, "settings": settings})
    with dg.DagsterInstance.ephemeral() as instance:
        for key in INPUTS.upstream_keys:
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2020-01-03"))
        publish(nats, record(1))
        context = dg.build_sensor_context(
            instance=instance, resources={"settings": settings}, repository_def=definitions.get_repository_def()
        )
        [request] = sensor.evaluate_tick(context).run_requests or []
        job = definitions.resolve_job_def(str(request.job_name))
        result = job.execute_in_process(instance=instance, partition_key=request.partition_key)
        assert recorded(result) == [("2020-01-02", 1)]
        assert instance.get_materialized_partitions(dg.AssetKey([SOLUTION, "prediction_log"])) == {"2020-01-02"}


@pytest.mark.long
def test_rows_that_a_former_release_kept_with_the_batch_are_moved_once(lake: Lake, nats: NatsServer) -> None:
    publish(nats, *(record(number) for number in range(3)))
    ingest(lake, nats)
    batch = f"SELECT * REPLACE ('late:' || id || ':3' AS prediction_id, 'batch' AS channel), 9 AS _source_snapshot FROM {TABLE}"
    with lake.connect(read_only=False) as connection:
        # One of its answers is in both tables, as after a restored backup; one row is from before the channels.
        connection.execute(f"CREATE TABLE {BATCH_TABLE} AS {batch} UNION ALL BY NAME FROM {TABLE} ORDER BY id")
        connection.execute(f"UPDATE {BATCH_TABLE} SET channel = NULL WHERE prediction_id = 'late:1:3'")
        connection.execute(f"DELETE FROM {TABLE} WHERE id > 0")
        for _ in range(2):
            STEPS[0].apply(lake, connection)
    with dg.DagsterInstance.ephemeral() as instance:
        assert recorded(ingest(lake, nats, instance)) == [("2020-01-02", 3)]
        assert recorded(ingest(lake, nats, instance)) == []
    assert rows(lake, f"SELECT id, channel FROM {TABLE} ORDER BY id") == [(0, "online"), (1, "online"), (2, "online")]
    assert rows(lake, f"SELECT id, channel FROM {BATCH_TABLE} ORDER BY id") == [(0, "batch"), (1, None), (2, "batch")]
    assert rows(lake, f"SELECT count(*), count(DISTINCT prediction_id), count(served_at) FROM {VIEW}") == [(6, 6, 6)]


def test_before_and_after_they_are_moved_every_prediction_is_read_once(lake: Lake, nats: NatsServer) -> None:
    with lake.connect(read_only=False) as connection:
        assert all_predictions(connection, SOLUTION) is None
        connection.execute(
            f"CREATE TABLE {BATCH_TABLE} AS SELECT 'late:' || i AS prediction_id, i::BIGINT AS id, DATE '2020-01-02' AS day, "
            "CASE WHEN i < 2 THEN 'online' ELSE 'batch' END AS channel FROM range(5) r(i)"
        )
        counted = f"SELECT count(*), count(DISTINCT prediction_id) FROM {all_predictions(connection, SOLUTION)}"
        assert connection.execute(counted).fetchall() == [(5, 5)]
        assert STEPS[0].is_needed(connection)
        STEPS[0].apply(lake, connection)
        assert not STEPS[0].is_needed(connection)
        counted = f"SELECT count(*), count(DISTINCT prediction_id) FROM {all_predictions(connection, SOLUTION)}"
        assert connection.execute(counted).fetchall() == [(5, 5)]
        assert connection.execute(f"SELECT count(*) FROM {TABLE}").fetchall() == [(2,)]


def test_a_label_is_found_by_the_key_in_another_partition(lake: Lake, nats: NatsServer) -> None:
    # Predicted on the evening before: the spine has the key on 3 January, and once more on 1 February.
    publish(nats, *(record(number) for number in range(3)), record(4, key=1000))
    ingest(lake, nats)
    window = PartitionRange("day", date(2020, 1, 2), date(2020, 1, 3))
    with lake.connect(read_only=False) as connection:
        connection.execute(
            f"INSERT INTO {SOLUTION}.spine SELECT * REPLACE (DATE '2020-02-01' AS day, 1 - was_late AS was_late) FROM {SOLUTION}.spine"
        )
        query = _joined(connection, INPUTS, window, datetime(2020, 3, 1, tzinfo=UTC))
        found = connection.execute(f"SELECT id, channel, was_late, matured FROM ({query}) ORDER BY id").fetchall()
    assert found == [(0, "online", 0, True), (1, "online", 1, True), (2, "online", 0, True), (1000, "online", None, False)]


def test_a_stream_that_is_half_full_gives_up_what_is_in_the_lake(lake: Lake, nats: NatsServer) -> None:
    async def shrink(stream: Any) -> None:
        configuration = (await stream.jetstream.stream_info(PREDICTIONS)).config
        await stream.jetstream.update_stream(replace(configuration, max_bytes=30_000))
        await stream.make_room(PREDICTIONS, SOLUTION, durable=f"lake-{SOLUTION}")

    publish(nats, *(record(number) for number in range(50)))
    ingest(lake, nats)
    assert len(nats.messages(PREDICTIONS, SOLUTION)) == 50
    publish(nats, record(50))
    nats.run(shrink)
    [left] = nats.messages(PREDICTIONS, SOLUTION)
    assert left.data == encode_record(record(50))


def test_the_sensor_asks_for_a_run_only_while_something_waits(lake: Lake, nats: NatsServer) -> None:
    sensor = build_prediction_log_sensor({SOLUTION: LoggedSolution(INPUTS.partitions, 60)})

    def tick(url: str, cursor: str | None = None) -> Any:
        with dg.DagsterInstance.ephemeral() as instance:
            settings = Settings(home=Path("/nonexistent"), nats_url=url)
            return sensor(dg.build_sensor_context(instance=instance, cursor=cursor, resources={"settings": settings}))

    empty = tick(nats.url)
    assert "no prediction waits" in empty.skip_reason.skip_message
    assert tick(nats.url, empty.cursor).cursor == empty.cursor
    publish(nats, record(1))
    asked = tick(nats.url, empty.cursor)
    [request] = asked.run_requests
    assert request.job_name == f"{SOLUTION}_prediction_log"
    # The next run is due after the interval of the solution.
    assert "1 predictions wait until 60 s after the run before" in tick(nats.url, asked.cursor).skip_reason.skip_message
    assert tick(nats.url).run_requests
    ingest(lake, nats)
    assert "no prediction waits" in tick(nats.url).skip_reason.skip_message
    nats.kill()
    assert "mlops up" in tick(nats.url).skip_message
