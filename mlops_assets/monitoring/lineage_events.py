"""OpenLineage events: what each run materialized, from which tables and columns, sent to a receiver that an installation names.

Off unless `MLOPS_OPENLINEAGE_URL` is set. A sensor reads the event log of runs that ended: no run waits for a receiver, and what a receiver
missed while it was away is sent when it answers again.
"""

import json
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import RunStatusChangeRecordsFilter
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from mlops_assets.core.keys import FOLLOWS_RUNS
from mlops_assets.core.settings import Settings, sensor_interval

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent
    from openlineage.client.transport.transport import Transport

NAMESPACE = "mlops_assets"
"""Of jobs and datasets alike: both are named by their asset key, `<solution>/model`."""

_PRODUCER = "https://github.com/dagster-io/dagster"
_INTERVAL_SECONDS = 30
_MOST_RUNS = 20
_TIMEOUT_SECONDS = 5.0
_ENDED = {
    dg.DagsterEventType.RUN_SUCCESS: "COMPLETE",
    dg.DagsterEventType.RUN_FAILURE: "FAIL",
    dg.DagsterEventType.RUN_CANCELED: "ABORT",
}
"""How a run ended -> what became of an asset whose step began and that was not materialized."""
_READ = {
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
}


@dataclass
class _RecordedAsset:
    """The records of one asset in a run: the step that was to make it, and its materializations in order of time."""

    step: str | None = None
    materializations: list[tuple[float, dg.AssetMaterialization]] = field(default_factory=list)


def build_lineage_events_sensor() -> dg.SensorDefinition:
    """The sensor. It is on, and launches nothing; the first tick begins to listen."""

    @dg.sensor(
        name="lineage_events",
        description="Sends OpenLineage events of what each run materialized to the receiver in MLOPS_OPENLINEAGE_URL.",
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        tags=FOLLOWS_RUNS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def lineage_events(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SkipReason:
        graph = context.repository_def.asset_graph if context.repository_def else None
        if graph is None:
            return dg.SkipReason("the code location is not loaded")
        if not context.cursor:
            position = context.instance.event_log_storage.get_maximum_record_id() or 0
            context.update_cursor(json.dumps(dict.fromkeys((status.value for status in _ENDED), position)))
            return dg.SkipReason("begins to listen")
        positions = json.loads(context.cursor)
        transport, sent = open_transport(str(settings.openlineage_url), settings.openlineage_api_key), 0
        for status, otherwise in _ENDED.items():
            changes = RunStatusChangeRecordsFilter(status, after_storage_id=positions[status.value])  # type: ignore[arg-type]
            for record in context.instance.fetch_run_status_changes(changes, limit=_MOST_RUNS, ascending=True).records:
                for event in run_events(context.instance, graph, record.run_id, otherwise=otherwise):
                    transport.emit(event)
                    sent += 1
                # A receiver that fails ends the tick here: the run is sent again, with the same identifiers.
                positions[status.value] = record.storage_id
                context.update_cursor(json.dumps(positions))
        return dg.SkipReason(f"sent {sent} events")

    return lineage_events


def open_transport(address: str, api_key: str | None) -> "Transport":
    """The transport to `address`: a receiver's (`http://`, `https://`), or a file (`file:///`), to which each event is appended as a line."""
    try:
        from openlineage.client.transport.file import FileConfig, FileTransport
        from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider
    except ImportError as error:
        raise dg.Failure("MLOPS_OPENLINEAGE_URL is set: install the extra, pip install 'mlops-assets[openlineage]'.") from error
    if address.startswith("file://"):
        return FileTransport(FileConfig(log_file_path=address, append=True))
    token = ApiKeyTokenProvider({"apiKey": api_key}) if api_key else TokenProvider({})
    # The next tick tries again.
    return HttpTransport(HttpConfig(url=address, timeout=_TIMEOUT_SECONDS, auth=token, retry={"total": 0}))


def run_events(instance: dg.DagsterInstance, graph: AssetGraph, run_id: str, *, otherwise: str) -> "Iterator[RunEvent]":
    """START and COMPLETE of every asset that the run materialized; START and `otherwise` where its step began and made nothing.

    Each asset is a job, and each of its materializations by one Dagster run a run, whose parent that is.
    """
    from openlineage.client.event_v2 import Job, RunState
    from openlineage.client.facet_v2 import parent_run

    run = instance.get_run_by_id(run_id)
    if run is None:
        return
    started, failures, assets = _recorded(instance, run_id)
    for key, recorded in assets.items():
        step = recorded.step or ""
        if step not in started or not graph.has(key):
            continue
        identity = str(uuid.uuid5(uuid.UUID(run_id), key.to_user_string()))
        parent = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=run_id), job=parent_run.Job(namespace=NAMESPACE, name=run.job_name)
        )
        job = Job(namespace=NAMESPACE, name=_name(key), facets=_job_facets(graph, key))
        partitions = [materialization.partition for _, materialization in recorded.materializations if materialization.partition]
        facets = {"parent": parent, **_nominal_time(graph, key, partitions)}
        yield _event(RunState.START, started[step], identity, job, facets, graph, key, {})
        if recorded.materializations:
            moment = recorded.materializations[-1][0]
            # What describes all partitions of a run stands in the metadata of the last of them.
            metadata = {
                name: value
                for _, materialization in recorded.materializations
                for name, value in materialization.metadata.items()
            }
            yield _event(RunState.COMPLETE, moment, identity, job, facets, graph, key, metadata)
        elif otherwise != "COMPLETE":
            moment, message = failures.get(step, (started[step], "The run ended before the asset was materialized."))
            yield _event(RunState[otherwise], moment, identity, job, facets | _error(message), graph, key, {})


def _recorded(
    instance: dg.DagsterInstance, run_id: str
) -> tuple[dict[str, float], dict[str, tuple[float, str]], dict[dg.AssetKey, _RecordedAsset]]:
    """Return the start of each step of the run, the time and reason of its failure, and the records of each asset."""
    started: dict[str, float] = {}
    failures: dict[str, tuple[float, str]] = {}
    assets: dict[dg.AssetKey, _RecordedAsset] = defaultdict(_RecordedAsset)
    for entry in instance.all_logs(run_id, of_type=_READ):
        event = entry.get_dagster_event()
        key, step = event.asset_key, event.step_key or ""
        if event.event_type == dg.DagsterEventType.STEP_START:
            started.setdefault(step, entry.timestamp)
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            described = data.user_failure_data.description if data.user_failure_data else None
            failures[step] = (entry.timestamp, described or (data.error.message if data.error else "failed"))
        elif key is not None:
            assets[key].step = step
            if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
                assets[key].materializations.append((entry.timestamp, event.step_materialization_data.materialization))
    return started, failures, assets


def _event(
    state: Any,
    moment: float,
    identity: str,
    job: Any,
    run_facets: Mapping[str, Any],
    graph: AssetGraph,
    key: dg.AssetKey,
    metadata: Mapping[str, dg.MetadataValue],
) -> "RunEvent":
    from openlineage.client.event_v2 import InputDataset, OutputDataset, Run, RunEvent

    return RunEvent(
        eventType=state,
        eventTime=datetime.fromtimestamp(moment, UTC).isoformat(),
        run=Run(runId=identity, facets=dict(run_facets)),
        job=job,
        producer=_PRODUCER,
        inputs=[InputDataset(namespace=NAMESPACE, name=_name(parent)) for parent in sorted(graph.get(key).parent_keys)],
        outputs=[
            OutputDataset(
                namespace=NAMESPACE,
                name=_name(key),
                facets=_dataset_facets(metadata),
                outputFacets=_output_facets(metadata),
            )
        ],
    )


def _name(key: dg.AssetKey) -> str:
    return key.to_user_string()


def _job_facets(graph: AssetGraph, key: dg.AssetKey) -> dict[str, Any]:
    from openlineage.client.facet_v2 import documentation_job, job_type_job, ownership_job

    node = graph.get(key)
    facets: dict[str, Any] = {
        "jobType": job_type_job.JobTypeJobFacet(processingType="BATCH", integration="DAGSTER", jobType="ASSET")
    }
    if node.description:
        facets["documentation"] = documentation_job.DocumentationJobFacet(description=node.description)
    if node.owners:
        facets["ownership"] = ownership_job.OwnershipJobFacet(owners=[ownership_job.Owner(name=name) for name in node.owners])
    return facets


def _nominal_time(graph: AssetGraph, key: dg.AssetKey, partitions: Sequence[str]) -> dict[str, Any]:
    """From the begin of the first partition to the end of the last one, of partitions that are windows of time."""
    from openlineage.client.facet_v2 import nominal_time_run

    definition = graph.get(key).partitions_def
    if not partitions or not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return {}
    windows = [definition.time_window_for_partition_key(partition) for partition in (min(partitions), max(partitions))]
    return {
        "nominalTime": nominal_time_run.NominalTimeRunFacet(
            nominalStartTime=windows[0].start.isoformat(), nominalEndTime=windows[1].end.isoformat()
        )
    }


def _error(message: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import error_message_run

    return {"errorMessage": error_message_run.ErrorMessageRunFacet(message=message, programmingLanguage="PYTHON")}


def _dataset_facets(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import column_lineage_dataset, dataset_version_dataset, schema_dataset

    facets: dict[str, Any] = {}
    schema, lineage = metadata.get("dagster/column_schema"), metadata.get("dagster/column_lineage")
    if isinstance(schema, dg.TableSchemaMetadataValue):
        facets["schema"] = schema_dataset.SchemaDatasetFacet(
            fields=[
                schema_dataset.SchemaDatasetFacetFields(name=column.name, type=column.type, description=column.description)
                for column in schema.schema.columns
            ]
        )
    if isinstance(lineage, dg.TableColumnLineageMetadataValue):
        facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(
            fields={
                column: column_lineage_dataset.Fields(
                    inputFields=[
                        column_lineage_dataset.InputField(
                            namespace=NAMESPACE, name=_name(source.asset_key), field=source.column_name
                        )
                        for source in sources
                    ]
                )
                for column, sources in lineage.column_lineage.deps_by_column.items()
            }
        )
    if (snapshot := metadata.get("lake_snapshot")) is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(snapshot.value))
    return facets


def _output_facets(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    rows = metadata.get("dagster/row_count")
    if not isinstance(rows, dg.IntMetadataValue):
        return {}
    return {"outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows.value)}
