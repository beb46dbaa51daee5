"""The client of the Dagster webserver's GraphQL: assets and how they stand, launching runs, following them. Nothing else speaks GraphQL."""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import requests

from mlops_assets.access.credentials import access_token, authorization
from mlops_assets.access.launchers import system_user_tags
from mlops_assets.access.tls import verification
from mlops_assets.clients import dagster_queries as queries
from mlops_assets.clients.asset_state import AssetState, asset_state
from mlops_assets.core.errors import AwayError, StackError
from mlops_assets.core.patience import LOST_CONNECTION, PATIENCE_SECONDS, patiently
from mlops_assets.core.settings import Settings

_TIMEOUT_SECONDS = 60
_FAILED_CHECK = "DagsterAssetCheckFailedError"
_AWAY = re.compile(rf"{LOST_CONNECTION.pattern}|DagsterUserCodeUnreachableError", LOST_CONNECTION.flags)
_REFUSED = "refused_because"
"""Spelled as in `stages/refusal.py`, which imports Dagster."""
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_PARTITION = "dagster/partition"
_IMPLICIT_JOB = "__ASSET_JOB"
# Spelled as in `keys.py`, which imports Dagster: too slow for a status command.
_PURPOSE_TAG = "mlops/purpose"
_REQUEST_TAG = "mlops/request"
_WILL_RETRY, _RETRIED_BY = "dagster/will_retry", "dagster/auto_retry_run_id"
_FAILURE_REASON, _INTERRUPTIONS = "dagster/failure_reason", ("UNEXPECTED_TERMINATION", "START_TIMEOUT")
# Dagster joins the dimensions of a partition in the order of their names.
_DIMENSIONS, _BETWEEN = ("dagster/partition/segment", "dagster/partition/training_date"), "|"


class QueryError(StackError):
    """Dagster did not answer a query."""


class UnansweredError(QueryError, AwayError):
    """Dagster, its database or the code location is away."""


class FailedQueryError(QueryError):
    """Dagster failed at a query, for a reason of its own."""


def model_partition(training_date: str, segment: str | None) -> str:
    """The key of the partition of a model: its training date, of a segment's model with the segment."""
    return training_date if segment is None else f"{segment}{_BETWEEN}{training_date}"


def partition_parts(partition: str) -> tuple[str, str | None]:
    """Training date and segment (None: all rows) of the partition of a model."""
    segment, separator, training_date = partition.rpartition(_BETWEEN)
    return training_date, segment if separator else None


@dataclass(frozen=True)
class RunState:
    """The state of a run: Dagster's status, its steps in order, those running, and seconds per finished step.

    A run that was interrupted is followed by another one, which goes on with it: `followed_by`, once it is there. Dagster may give up on
    one, and be asked again (`runs/recovery.py`): `is_interrupted` without `is_followed`.
    """

    run_id: str
    status: str
    steps: tuple[str, ...]
    running: tuple[str, ...]
    seconds: dict[str, float]
    is_interrupted: bool
    is_followed: bool
    followed_by: str | None

    @property
    def finished(self) -> bool:
        """Whether the run will not change any more, and the one that goes on with it is there if there will be one."""
        return self.status in ("SUCCESS", "FAILURE", "CANCELED") and (self.followed_by is not None or not self.is_followed)


@dataclass(frozen=True)
class Materialization:
    """One materialization: when, by which run, of which partition, with its numbers, texts, paths and addresses."""

    at: datetime
    run_id: str
    partition: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class DagsterClient:
    """Access to one Dagster webserver. Raises QueryError when it refuses, UnansweredError when it is away for `patience_seconds`."""

    url: str
    token: str = field(repr=False)
    verify: str | bool = True
    timeout_seconds: float = _TIMEOUT_SECONDS
    patience_seconds: float = PATIENCE_SECONDS

    @classmethod
    def from_settings(cls, settings: Settings) -> "DagsterClient":
        """The client of this installation's webserver."""
        return cls(url=settings.dagster_url, token=access_token(settings), verify=verification(settings.listening))

    def assets(self, keys: Collection[str] | None = None, *, with_checks: bool = False) -> dict[str, AssetState]:
        """The assets of `keys` that exist, by key; all when None, which takes Dagster twenty times as long as a few.

        The states of checks by partition are most of what the answer costs: without them no check is listed.
        """
        wanted = None if keys is None else [_key(key) for key in keys]
        nodes = self.query(queries.ASSETS, keys=wanted, checks=with_checks)["assetNodes"]
        return {state.key: state for node in nodes for state in [asset_state(node, self._severity)]}

    def _severity(self, key: dict[str, list[str]], check: str, partition: str) -> str:
        """The severity of the newest result of a check for a partition."""
        [execution] = self.query(queries.SEVERITY, key=key, check=check, partition=partition)["assetCheckExecutions"]
        return str(execution["evaluation"]["severity"])

    def partition_keys(self, key: str) -> list[str]:
        """All partition keys of an asset, in order."""
        return list(self.query(queries.PARTITION_KEYS, key=_key(key))["assetNodeOrError"]["partitionKeys"])

    def metadata(self, key: str, partition: str | None) -> dict[str, Any]:
        """Numbers, texts, paths and addresses of the newest materialization (of a partition), empty when there is none."""
        return next((event.metadata for event in self.materializations(key, 1, partition)), {})

    def materializations(self, key: str, limit: int, partition: str | None = None) -> list[Materialization]:
        """The newest materializations of an asset (of a partition), newest first, with what `metadata` gives of each."""
        partitions = None if partition is None else [partition]
        node = self.query(queries.MATERIALIZATIONS, key=_key(key), partitions=partitions, limit=limit)["assetNodeOrError"]
        return [_materialization(event) for event in node["assetMaterializations"]]

    def launch(
        self,
        assets: Sequence[AssetState],
        first: str | None,
        last: str | None,
        configuration: Mapping[str, Mapping[str, Any]],
        *,
        purpose: str,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Start one run that materializes `assets` for the partitions from `first` to `last`, None where none has any; returns the run's id.

        `configuration` is the run configuration of the assets that take one, by asset key. The key of a segment's partition is
        `model_partition(...)`. The run is one of the job that has all of the assets. Where none has, as with assets of different
        partitions, it is one of Dagster's implicit job, and `purpose`, which the run list shows, tells what it is.
        """
        request = uuid4().hex
        labels = {_PURPOSE_TAG: purpose, _REQUEST_TAG: request, **system_user_tags(), **(tags or {})}
        if first is not None and last is not None:
            labels |= {_PARTITION: first} if first == last else {_RANGE_START: first, _RANGE_END: last}
        if first is not None and _BETWEEN in first:
            labels |= dict(zip(_DIMENSIONS, first.split(_BETWEEN), strict=True))
        repository, location = assets[0].location
        parameters = {
            "selector": {
                "jobName": self._job(assets),
                "repositoryName": repository,
                "repositoryLocationName": location,
                "assetSelection": [_key(asset.key) for asset in assets],
            },
            "mode": "default",
            "runConfigData": {
                "ops": {
                    operation: {"config": dict(configuration[asset.key])}
                    for asset in assets
                    if asset.key in configuration
                    for operation in asset.operations
                }
            },
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in labels.items()]},
        }
        return patiently(partial(self._launch_once, parameters, request), seconds=self.patience_seconds)

    def _launch_once(self, parameters: Mapping[str, Any], request: str) -> str:
        """Launch the run of `request`, unless a former attempt whose answer was lost did so."""
        # One that was stored and not queued never begins.
        known = self._ask(queries.TAGGED, tags=[{"key": _REQUEST_TAG, "value": request}])["runsOrError"]["results"]
        if begun := [run for run in known if run["status"] != "NOT_STARTED"]:
            return str(begun[0]["runId"])
        answer = self._ask(queries.LAUNCH, parameters=parameters)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise StackError(f"Dagster did not launch the run: {answer}", remedy="See `mlops logs code-location`.")
        return str(answer["run"]["runId"])

    def _job(self, assets: Sequence[AssetState]) -> str:
        """The job that runs all of `assets`, of several the one with the fewest others; else Dagster's implicit one."""
        common = set(assets[0].jobs).intersection(*(asset.jobs for asset in assets))
        if len(common) < 2:
            return next(iter(common), _IMPLICIT_JOB)
        sizes = Counter(name for node in self.query(queries.JOBS)["assetNodes"] for name in node["jobNames"])
        return min(common, key=lambda name: (sizes[name], name))

    def run(self, run_id: str, *, with_steps: bool = True) -> RunState:
        """Return the present state of the run. For its steps Dagster reads all events of the run: without them the answer is cheap."""
        run = self.query(queries.RUN, id=run_id, steps=with_steps)["runOrError"]
        stats, tags = run.get("stepStats", []), {tag["key"]: tag["value"] for tag in run["tags"]}
        return RunState(
            run_id=run_id,
            status=run["status"],
            steps=tuple(step["key"] for step in (run.get("executionPlan") or {"steps": []})["steps"]),
            running=tuple(step["stepKey"] for step in stats if step["startTime"] and not step["endTime"]),
            seconds={
                step["stepKey"]: step["endTime"] - step["startTime"] for step in stats if step["endTime"] and step["startTime"]
            },
            is_interrupted=run["status"] == "FAILURE" and tags.get(_FAILURE_REASON) in _INTERRUPTIONS,
            # Dagster stores the failure first, and then whether it tries again. A run inherits the tags of the one that it follows.
            is_followed=run["status"] == "FAILURE" and tags.get(_WILL_RETRY) != "false",
            followed_by=tags.get(_RETRIED_BY) if run["status"] == "FAILURE" else None,
        )

    def runs_with_tag(self, key: str, value: str) -> list[str]:
        """The ids of the runs that carry a tag, newest first."""
        answer = self.query(queries.TAGGED, tags=[{"key": key, "value": value}])["runsOrError"]
        return [str(run["runId"]) for run in answer["results"]]

    def failures(self, run_id: str) -> list[str]:
        """Return the reasons why the run failed: the blocking checks that failed, and the innermost cause of each other failed step."""
        failed_checks, failed = [], []
        for event in self.query(queries.FAILURES, id=run_id)["logsForRun"]["events"]:
            if event["__typename"] == "AssetCheckEvaluationEvent":
                check = event["evaluation"]
                if not check["success"] and check["severity"] == "ERROR":
                    failed_checks.append(
                        f"{'/'.join(check['assetKey']['path'])}: {check['checkName']}: {check['description'] or 'failed'}"
                    )
            elif event["__typename"] == "ExecutionStepFailureEvent":
                error, described = event["error"], event["failureMetadata"]
                causes = (error or {}).get("causes") or []
                innermost = causes[-1]["message"] if causes else (error or {}).get("message", "")
                if _FAILED_CHECK not in innermost:
                    failed.append(f"{event['stepKey']}: {(described or {}).get('description') or innermost}".strip())
            elif event["__typename"] == "RunFailureEvent" and not (failed_checks or failed):
                failed.append(event["message"])
        # A step that was tried again evaluated its checks again.
        return list(dict.fromkeys([*failed_checks, *failed]))

    def refusals(self, run_id: str) -> list[str]:
        """Return the reasons why a run that succeeded refused its candidate: the failed checks, with the asset that they are of."""
        return [
            f"{'/'.join(event['assetKey']['path'])}: {entry['text']}"
            for event in self.query(queries.REFUSALS, id=run_id)["logsForRun"]["events"]
            for entry in event.get("metadataEntries", [])
            if entry["label"] == _REFUSED
        ]

    def messages(self, run_id: str, after: str | None) -> tuple[list[str], str]:
        """Return the messages that the assets of a run logged since the position `after` (None: its beginning), and the position reached."""
        answer = self.query(queries.MESSAGES, id=run_id, after=after)["logsForRun"]
        return [event["message"] for event in answer["events"] if event], answer["cursor"]

    def run_url(self, run_id: str) -> str:
        """Page of the run."""
        return f"{self.url}/runs/{run_id}"

    def asset_url(self, key: str, partition: str | None) -> str:
        """Page of the asset, or of one of its partitions."""
        return f"{self.url}/assets/{key}" + (f"?view=partitions&partition={partition}" if partition else "")

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data that GraphQL answers to `query`, which may be asked more than once."""
        return patiently(partial(self._ask, query, **variables), seconds=self.patience_seconds)

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        try:
            response = requests.post(
                f"{self.url}/graphql",
                json={"query": query, "variables": variables},
                headers=authorization(self.token),
                timeout=self.timeout_seconds,
                verify=self.verify,
            )
            answer = response.json()
        except requests.RequestException as error:
            raise UnansweredError(f"Dagster does not answer at {self.url}: {error}", remedy="mlops up") from error
        data = answer.get("data") or {}
        refusals = [str(error["message"]) for error in answer.get("errors") or []]
        # A union of GraphQL tells of an error as one of its members.
        errors = [str(member["message"]) for member in data.values() if isinstance(member, dict) and "message" in member]
        if any(_AWAY.search(message) for message in (*refusals, *errors)):
            raise UnansweredError("Dagster does not answer: its database or the code location is away.", remedy="mlops status")
        if refusals:
            kind = FailedQueryError if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR else QueryError
            raise kind(f"Dagster refused a query: {refusals[0]}", remedy="mlops logs dagster-webserver")
        return dict(data)


def _materialization(event: dict[str, Any]) -> Materialization:
    values: dict[str, Any] = {}
    for entry in event["metadataEntries"]:
        label = entry.pop("label")
        # The value's field is named by its kind: floatValue, text, path. Kinds not asked for have none.
        [(kind, value)] = entry.items() or [("", None)]
        values[label] = json.loads(value) if kind == "jsonString" else value
    return Materialization(
        at=datetime.fromtimestamp(int(event["timestamp"]) / 1000, tz=UTC),
        run_id=event["runId"],
        partition=event["partition"],
        metadata=values,
    )


def _key(key: str) -> dict[str, list[str]]:
    return {"path": key.split("/")}
