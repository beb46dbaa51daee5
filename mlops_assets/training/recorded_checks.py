"""Results of checks in an earlier run: a failed check blocks within its own run only, so a later run reads them here."""

from dataclasses import dataclass
from datetime import date

import dagster as dg

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
