"""The sensor of a champion that was moved by hand: an HTTP server that answers like the model registry, and a real Dagster instance."""

import json
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest
from bundles import record_of
from http_servers import running
from msgspec.structs import replace

from mlops_assets.clients.signatures import Signer
from mlops_assets.core.asset_jobs import define_job
from mlops_assets.core.deployment_target import LEFT_TO_SOLUTION, DeploymentTarget
from mlops_assets.core.keys import SEGMENT, TRAINING_DATE, job_name
from mlops_assets.core.partitions import build_partitions
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.champion_sensor import build_champion_sensor

DAYS = build_partitions(start=date(2013, 1, 1), end=None, cadence="daily")
SOLUTION = DeploymentTarget("delays", None, DAYS)
SEGMENTS = [
    DeploymentTarget(
        "delays", name, dg.MultiPartitionsDefinition({TRAINING_DATE: DAYS, SEGMENT: dg.StaticPartitionsDefinition(["a", "b"])})
    )
    for name in ("a", "b")
]
ALIASES: dict[str, dict[str, Any]] = {}
REQUESTS: list[str] = []


class _Registry(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        REQUESTS.append(self.path)
        parts = urlsplit(self.path)
        if parts.path.endswith("/search"):
            aliases = [{"alias": alias, "version": found["version"]} for alias, found in ALIASES.items()]
            found: dict[str, Any] | None = {"registered_models": [{"name": "delays", "aliases": aliases}]}
        else:
            version = ALIASES.get(parse_qs(parts.query)["alias"][0])
            found = {"model_version": version} if version else None
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps(found or {}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    ALIASES.clear()
    with running(HTTPServer(("127.0.0.1", 0), _Registry)) as server:
        yield Settings(home=tmp_path, mlflow_port=server.server_port)


def point(settings: Settings, alias: str, version: int, **tags: str) -> None:
    """Give `alias` to a version that was registered here and passed its gates; then its `tags` were changed by hand."""
    signer = Signer(settings.signing_key_file)
    record = record_of("delays", version)
    record = replace(record, training=replace(record.training, training_date=date(2013, 2, 1), segment=tags.get("segment")))
    signed = record.training.tags | {"bundle_record": record.text, "status": "accepted"}
    signed |= record.sign(signer, "registered") | record.sign(signer, "accepted")
    write(alias, version, signed | tags)


def write(alias: str, version: int, tags: dict[str, str]) -> None:
    """Give `alias` to a version with these tags, which anybody can write."""
    listed = [{"key": key, "value": value} for key, value in tags.items()]
    ALIASES[alias] = {"version": str(version), "run_id": f"run-{version}", "tags": listed}


def tags_of(alias: str) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in ALIASES[alias]["tags"]}


def deploy(instance: dg.DagsterInstance, place: DeploymentTarget, version: int, *, left_to_solution: bool = False) -> None:
    """What the deployment asset records."""
    event = dg.AssetMaterialization(
        place.key,
        partition=str(place.partition_key("2013-01-10")),
        metadata={"model_version": version, LEFT_TO_SOLUTION: left_to_solution},
    )
    instance.report_runless_asset_event(event)


def tick(instance: dg.DagsterInstance, settings: Settings, places: list[DeploymentTarget], *, cursor: str | None = None) -> Any:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"settings": settings})
    names = {job_name(*place.key.path) for place in places}
    jobs = [define_job(name, selection=dg.AssetSelection.all(), description="") for name in names]
    return build_champion_sensor(places, jobs)(context)


def reason_to_wait(answer: dg.SensorResult) -> str:
    """Why nothing is asked for."""
    return str(answer.skip_reason.skip_message) if answer.skip_reason else ""


def requested(answer: dg.SensorResult) -> list[tuple[str, int, str]]:
    """Partition, version and reason of each run that is asked for."""
    found = []
    for request in answer.run_requests or []:
        [operation] = request.run_config["ops"].values()
        found.append((str(request.partition_key), operation["config"]["version"], operation["config"]["reason"]))
    return found


def test_nothing_is_asked_for_while_registry_and_history_agree(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    assert "nothing was deployed yet" in reason_to_wait(tick(instance, settings, [SOLUTION]))
    deploy(instance, SOLUTION, 3)
    point(settings, "champion", 3)
    assert "version 3 is deployed and is the champion" in reason_to_wait(tick(instance, settings, [SOLUTION]))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, ("2013-02-01", 5, "the alias champion was moved by hand from version 3")),
        ({"status": "rejected"}, ("2013-01-10", 3, "restored: the alias champion was moved by hand to version 5")),
        ({"segment": "a"}, ("2013-01-10", 3, "restored: the alias champion was moved by hand to version 5")),
        (None, ("2013-01-10", 3, "restored: the alias champion was removed by hand")),
    ],
)
def test_an_alias_moved_by_hand_is_recorded_or_moved_back(
    settings: Settings, tags: dict[str, str] | None, expected: tuple[str, int, str]
) -> None:
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, SOLUTION, 3)
    if tags is not None:
        point(settings, "champion", 5, **tags)
    [(partition, version, reason)] = requested(tick(instance, settings, [SOLUTION]))
    assert (partition, version) == expected[:2]
    assert reason.startswith(expected[2])
    # The same state asks for the same run, which Dagster launches once.
    keys = {tick(instance, settings, [SOLUTION]).run_requests[0].run_key for _ in range(2)}
    assert len(keys) == 1


def refusal(settings: Settings) -> str:
    """Why the alias is moved back from the version that has it."""
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, SOLUTION, 3)
    [(_, version, reason)] = requested(tick(instance, settings, [SOLUTION]))
    assert (version, reason.partition(".")[0]) == (3, "restored: the alias champion was moved by hand to version 5")
    return reason


def test_a_tag_opens_no_gate(settings: Settings) -> None:
    write("champion", 5, {"status": "accepted", "training_date": "2013-02-01"})
    assert "Version 5 of delays has no signed record of its bundle" in refusal(settings)
    point(settings, "champion", 5)
    complete = tags_of("champion")
    write("champion", 5, {name: value for name, value in complete.items() if name != "acceptance_signature"})
    assert "status = accepted, but without the tag acceptance_signature" in refusal(settings)
    # What its registration signed is no acceptance.
    write("champion", 5, complete | {"acceptance_signature": complete["registration_signature"]})
    assert "no signature of its evaluation under this version and bundle" in refusal(settings)


def test_the_tags_of_an_accepted_version_open_no_gate_for_another(settings: Settings) -> None:
    point(settings, "champion", 4)
    write("champion", 5, tags_of("champion"))
    assert "was changed in MLflow after it was registered" in refusal(settings)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("training_date", "2013-03-01"),
        ("dataset_fingerprint", "1"),
        ("bundle_record", record_of("delays", 5, files={"model.onnx": "1"}).text),
        ("bundle_record", "{}"),
        ("bundle_record", "no JSON"),
    ],
)
def test_a_version_whose_signed_tags_were_changed_is_moved_back(settings: Settings, tag: str, value: str) -> None:
    point(settings, "champion", 5, **{tag: value})
    assert "was changed in MLflow after it was registered" in refusal(settings)


def test_an_acceptance_that_was_withdrawn_and_put_back_opens_no_gate(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, SOLUTION, 3)
    point(settings, "champion", 5)
    for passed in (False, True):
        metadata = {"model_version": 5, "gates_passed": passed}
        key = dg.AssetKey(["delays", "evaluation"])
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2013-02-01", metadata=metadata))
        [(_, version, reason)] = requested(tick(instance, settings, [SOLUTION]))
        assert version == (5 if passed else 3)
        assert passed or "rejected it; the tags of its acceptance are older" in reason


def test_a_deployment_in_progress_is_left_alone(settings: Settings) -> None:
    """It moves the alias first and is recorded later: a tick between the two took a rollback back."""
    seen: list[dg.SensorResult] = []
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, SOLUTION, 3)
    point(settings, "champion", 3)
    cursor = tick(instance, settings, [SOLUTION]).cursor

    @dg.asset(key=SOLUTION.key, partitions_def=DAYS)
    def deployment(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        point(settings, "champion", 1)
        seen.append(tick(context.instance, settings, [SOLUTION], cursor=cursor))
        if context.run.tags.get("fails"):
            raise ZeroDivisionError
        return dg.MaterializeResult(metadata={"model_version": 1, LEFT_TO_SOLUTION: False})

    partition, fails = "2013-01-10", {"fails": "yes"}
    dg.materialize([deployment], instance=instance, partition_key=partition, tags=fails, raise_on_error=False)
    [answer] = seen
    assert (requested(answer), reason_to_wait(answer)) == ([], "delays: a deployment is in progress")
    # It ended and recorded nothing: now the alias stands without a deployment.
    after = tick(instance, settings, [SOLUTION], cursor=answer.cursor)
    assert requested(after) == [("2013-02-01", 1, "the alias champion was moved by hand from version 3")]
    dg.materialize([deployment], instance=instance, partition_key=partition)
    assert requested(seen[1]) == []
    assert "version 1 is deployed" in reason_to_wait(tick(instance, settings, [SOLUTION], cursor=seen[1].cursor))


def test_each_segment_is_looked_after_by_itself(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    for place, version in zip(SEGMENTS, (3, 4), strict=True):
        deploy(instance, place, version)
    point(settings, "champion-a", 5, segment="a")
    point(settings, "champion-b", 4, segment="b")
    assert requested(tick(instance, settings, SEGMENTS)) == [
        ("a|2013-02-01", 5, "the alias champion was moved by hand from version 3")
    ]
    point(settings, "champion-a", 4, segment="b")
    [(partition, version, reason)] = requested(tick(instance, settings, SEGMENTS))
    assert (partition, version) == ("a|2013-01-10", 3)
    assert reason.startswith("restored")


def test_a_segment_that_was_left_to_its_solution_needs_no_alias(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, SEGMENTS[0], 3)
    deploy(instance, SEGMENTS[0], 1, left_to_solution=True)
    assert reason_to_wait(tick(instance, settings, SEGMENTS[:1]))
    point(settings, "champion-a", 3, segment="a")
    assert requested(tick(instance, settings, SEGMENTS[:1])) == [
        ("a|2013-02-01", 3, "the alias champion was moved by hand from version 1")
    ]


def test_what_agreed_is_looked_at_again_when_the_registry_or_the_history_changed(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, SOLUTION, 3)
    point(settings, "champion", 3)
    cursor = tick(instance, settings, [SOLUTION]).cursor
    REQUESTS.clear()
    quiet = tick(instance, settings, [SOLUTION], cursor=cursor)
    assert (reason_to_wait(quiet), quiet.cursor) == ("delays: as it was deployed", cursor)
    assert [path.partition("?")[0].rpartition("/")[2] for path in REQUESTS] == ["search"]
    point(settings, "champion", 5)
    changed = tick(instance, settings, [SOLUTION], cursor=cursor)
    assert [version for _, version, _ in requested(changed)] == [5]
    # What does not agree is not kept.
    assert [version for _, version, _ in requested(tick(instance, settings, [SOLUTION], cursor=changed.cursor))] == [5]
    point(settings, "champion", 3)
    deploy(instance, SOLUTION, 4)
    assert [version for _, version, _ in requested(tick(instance, settings, [SOLUTION], cursor=cursor))] == [3]


def test_one_sensor_runs_the_job_of_each_solution(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    other = DeploymentTarget("others", None, DAYS)
    for place in (SOLUTION, other):
        deploy(instance, place, 3)
    # Neither has the alias.
    requests = tick(instance, settings, [SOLUTION, other]).run_requests
    assert [(request.job_name, request.asset_selection) for request in requests] == [
        ("delays_deployment", [SOLUTION.key]),
        ("others_deployment", [other.key]),
    ]


def test_a_registry_that_does_not_answer_is_waited_for(tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, SOLUTION, 3)
    assert "does not answer" in str(tick(instance, Settings(home=tmp_path, mlflow_port=1), [SOLUTION]).skip_message)
