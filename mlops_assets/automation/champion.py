"""The sensor that notices a champion which somebody set by hand in MLflow, past the deployment asset.

It launches the deployment that records the change, so that the history tells what was live, or that restores the former champion
when there is no evidence that the chosen version passed its gates. The champions of segments are looked after like that of the solution.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from mlops_assets.keys import DEPLOYMENT, EVALUATION, SEGMENT, SEGMENT_STAGES, TRAINING_DATE, stage_key
from mlops_assets.resources.bundle_record import EvidenceError, accepted_record
from mlops_assets.resources.champion import RegistryUnreachableError, registered_champion
from mlops_assets.resources.registered_model import TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.resources.signatures import Signer
from mlops_assets.settings import Settings

GATES_PASSED_METADATA = "gates_passed"
"""Metadata of an evaluation: whether the version passed every gate."""

LEFT_TO_SOLUTION = "left_to_solution"
"""Metadata of a deployment: whether it took from a segment its own champion, so that the solution's predicts its rows."""

_INTERVAL_SECONDS = 30
_ACTOR = "mlflow"
_MOST_EVENTS = 1000


@dataclass(frozen=True)
class Place:
    """What has a champion: a solution, or a segment of it, with its deployment asset and that asset's partitions."""

    solution: str
    segment: str | None
    partitions: dg.PartitionsDefinition

    @property
    def key(self) -> dg.AssetKey:
        """Key of the deployment asset."""
        return stage_key(self.solution, DEPLOYMENT if self.segment is None else SEGMENT_STAGES[DEPLOYMENT])

    def partition_key(self, training_date: str) -> str:
        """The partition of a version that was trained for `training_date`."""
        return (
            training_date if self.segment is None else dg.MultiPartitionKey({SEGMENT: self.segment, TRAINING_DATE: training_date})
        )

    def newest_deployment(self, instance: dg.DagsterInstance) -> dg.EventLogRecord | None:
        """The last deployment, whatever its training date."""
        keys = None
        if self.segment is not None and isinstance(self.partitions, dg.MultiPartitionsDefinition):
            keys = self.partitions.get_multipartition_keys_with_dimension_value(SEGMENT, self.segment)
        wanted = dg.AssetRecordsFilter(asset_key=self.key, asset_partitions=keys)
        records = instance.fetch_materializations(wanted, limit=1).records
        return records[0] if records else None


def build_champion_sensor(places: Sequence[Place]) -> dg.SensorDefinition:
    """The sensor of `places` with one deployment asset. It asks for nothing while the registry agrees with the newest deployments."""
    [key] = {place.key for place in places}

    @dg.sensor(
        name=f"{places[0].solution}_{'champion' if places[0].segment is None else 'segment_champions'}",
        description="Reconciles a champion that was set by hand in MLflow with the history of deployments.",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def champion(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult | dg.SkipReason:
        try:
            found = [_reconcile(context.instance, settings, place) for place in places]
        except RegistryUnreachableError as error:
            return dg.SkipReason(str(error))
        requests = [each for each in found if isinstance(each, dg.RunRequest)]
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("; ".join(map(str, found)))

    return champion


def _reconcile(instance: dg.DagsterInstance, settings: Settings, place: Place) -> dg.RunRequest | str:
    """The run that brings history and registry together; a sentence when they agree."""
    name = place.segment or place.solution
    recorded = place.newest_deployment(instance)
    if recorded is None or recorded.asset_materialization is None:
        return f"{name}: nothing was deployed yet"
    metadata = recorded.asset_materialization.metadata
    deployed = int(str(metadata["model_version"].value))
    expected = None if LEFT_TO_SOLUTION in metadata and metadata[LEFT_TO_SOLUTION].value else deployed
    found = registered_champion(settings, place.solution, place.segment)
    if (found.version if found else None) == expected:
        return f"{name}: version {deployed} is deployed and is the champion"
    refused = None if found is None else _refusal(instance, settings, place, found)
    if found is not None and refused is None:
        version, partition = found.version, place.partition_key(found.tags[TRAINING_DATE_TAG])
        reason = f"the alias champion was moved by hand from version {deployed}"
    else:
        version, partition = deployed, str(recorded.partition_key)
        reason = (
            f"restored: the alias champion was moved by hand to version {found.version}. {refused}"
            if found
            else "restored: the alias champion was removed by hand"
        )
    configuration = {"version": version, "actor": _ACTOR, "reason": reason}
    return dg.RunRequest(
        # One run for one state of affairs: a second tick asks for the same run, which Dagster does not launch again.
        run_key=f"{found.version if found else None}-{recorded.storage_id}",
        asset_selection=[place.key],
        partition_key=partition,
        run_config={"ops": {place.key.to_python_identifier(): {"config": configuration}}},
    )


def _refusal(instance: dg.DagsterInstance, settings: Settings, place: Place, found: RegisteredModel) -> str | None:
    """Why `found` may not become the champion of `place`, or None."""
    if found.segment != place.segment:
        return f"{found} was trained for {found.segment or 'all rows'}, not for {place.segment or 'all rows'}."
    return gates_problem(instance, Signer(settings.signing_key_file), found)


def gates_problem(instance: dg.DagsterInstance, signer: Signer, model: RegisteredModel) -> str | None:
    """Why `model` may not predict, with the remedy; None when its evaluation signed that it passed every gate.

    A signature that a later evaluation withdrew, and that somebody put back, does not count: Dagster's event log has the rejection.
    """
    try:
        accepted_record(signer, model)
    except EvidenceError as error:
        return str(error)
    evaluation = next(iter(_materializations(instance, model, EVALUATION)), None)
    if evaluation is not None and _metadata(evaluation).get(GATES_PASSED_METADATA) is False:
        return (
            f"{model} has not passed its gates (its newest evaluation, run {evaluation.run_id}, rejected it; the tags of its acceptance "
            "are older): read the checks of that run."
        )
    return None


def was_deployed(instance: dg.DagsterInstance, model: RegisteredModel) -> bool:
    """Whether `model` predicted before, as Dagster's event log has it."""
    return bool(_materializations(instance, model, DEPLOYMENT))


def _materializations(instance: dg.DagsterInstance, model: RegisteredModel, stage: str) -> list[dg.EventLogRecord]:
    """The materializations of `stage` that are about `model`, newest first."""
    date, segment = model.tags[TRAINING_DATE_TAG], model.segment
    wanted = dg.AssetRecordsFilter(
        asset_key=stage_key(model.solution, stage if segment is None else SEGMENT_STAGES[stage]),
        asset_partitions=[str(date if segment is None else dg.MultiPartitionKey({SEGMENT: segment, TRAINING_DATE: date}))],
    )
    records = instance.fetch_materializations(wanted, limit=_MOST_EVENTS).records
    return [record for record in records if _metadata(record).get("model_version") == model.version]


def _metadata(record: dg.EventLogRecord) -> dict[str, object]:
    materialization = record.asset_materialization
    return {name: entry.value for name, entry in materialization.metadata.items()} if materialization else {}
