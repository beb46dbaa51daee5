"""Results of checks in an earlier run: a failed check blocks within its own run only, so a later run reads them here."""

from dataclasses import dataclass
from datetime import date

import dagster as dg
from dagster._core.storage.asset_check_execution_record import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES as COMPLETED

from mlops_assets.core.keys import TRAINING_DATASET
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training import dataset_checks


@dataclass(frozen=True)
class DatasetState:
    """The results of the checks of a training dataset when it was last written, by name, and its run (None: none).

    `unchanged` is whether its rows are still those that the candidate was trained on.
    """

    run_id: str | None
    passed: tuple[str, ...]
    failed: tuple[str, ...]
    warned: tuple[str, ...]
    unchanged: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """Blocking checks that did not run."""
        known = {*self.passed, *self.failed}
        return tuple(rule.name for rule in dataset_checks.RULES if rule.blocking and rule.name not in known)


def dataset_state(instance: dg.DagsterInstance, inputs: SolutionInputs, training_date: date, *, unchanged: bool) -> DatasetState:
    """The state of the training dataset of `training_date`, as Dagster recorded it."""
    key = inputs.key(TRAINING_DATASET)
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[training_date.isoformat()]), limit=1
    ).records
    if not records:
        return DatasetState(run_id=None, passed=(), failed=(), warned=(), unchanged=unchanged)
    run_id = records[0].event_log_entry.run_id
    evaluations: dict[str, dg.AssetCheckEvaluation] = {}
    # Oldest first: of a step that was tried again the last result counts.
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records:
        event = record.event_log_entry.dagster_event
        if event is not None and event.asset_check_evaluation_data.asset_key == key:
            evaluations[event.asset_check_evaluation_data.check_name] = event.asset_check_evaluation_data
    blocking = {name for name, evaluation in evaluations.items() if evaluation.severity == dg.AssetCheckSeverity.ERROR}
    failed = {name for name, evaluation in evaluations.items() if not evaluation.passed}
    return DatasetState(
        run_id=run_id,
        passed=tuple(sorted(set(evaluations) - failed)),
        failed=tuple(sorted(failed & blocking)),
        warned=tuple(sorted(failed - blocking)),
        unchanged=unchanged,
    )


@dataclass(frozen=True)
class RecordedResult:
    """The newest result of a check. Without one `evaluation` is None, and `lacking` completes the sentence "The check ..." with the reason."""

    evaluation: dg.AssetCheckEvaluation | None
    lacking: str = ""


def newest_result(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> RecordedResult:
    """The newest result of the check `key`, in whichever run; one that a later run only planned does not hide it."""
    storage = instance.event_log_storage
    for record in storage.get_asset_check_execution_history(key, limit=1, status=COMPLETED):
        if record.evaluation is not None:
            return RecordedResult(record.evaluation)
    planned = storage.get_asset_check_execution_history(key, limit=1)
    if not planned:
        return RecordedResult(None, "has never run")
    run = instance.get_run_by_id(planned[0].run_id)
    if run is not None and not run.is_finished:
        return RecordedResult(None, f"has no result yet: run {run.run_id} is under way")
    return RecordedResult(None, f"has no result: run {planned[0].run_id} ended before it gave one")
