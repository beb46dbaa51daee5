"""Retention of what MLflow holds of candidates that nobody uses: refused versions, and trainings that never made one.

A version stays in the registry for good, with its tags and its signed record; what goes is its run with the trials below it, its files and
its logged model. MLflow deletes in two steps: a deleted run can be restored, until `mlflow gc` removes it.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import duckdb

from mlops_assets.clients.champion import registered_aliases
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RECALIBRATES_TAG, TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.clients.search_storage import delete_study, ended_studies
from mlops_assets.core.settings import MLFLOW_DATABASE, Settings
from mlops_assets.predictions.all_predictions import all_predictions
from mlops_assets.schema.column_names import MODEL_VERSION
from mlops_assets.training.acceptance import was_deployed
from mlops_assets.training.model import CANDIDATE_PREFIX
from mlops_assets.training.training_runs import MAKER_TAG, runs_of_trainings, trials_below

if TYPE_CHECKING:
    from mlflow.entities import Run

RESTORABLE_DAYS = 30
"""For so long `mlflow runs restore` brings a deleted run back."""

_EXPIRED_ON = "mlops.expired_on"


@dataclass
class ModelMaintenance:
    """The result: the versions and runs that MLflow has, and what was removed, or with a dry run would be.

    `expired` are refused versions, as solution and number, `abandoned` runs that made no version, `removed` the runs whose files went, and
    `studies` the searches whose trials went from the database of searches.
    """

    versions: int = 0
    runs: int = 0
    expired: list[str] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ModelUpkeep:
    """The maintenance of one registry, with what says that a version is used: the deployments in Dagster, the predictions in the lake."""

    registry: ModelRegistry
    instance: dg.DagsterInstance
    connection: duckdb.DuckDBPyConnection
    settings: Settings
    now: datetime

    def run(self, *, dry_run: bool, report: Callable[[str], None]) -> ModelMaintenance:
        """Delete what is older than `kept_run_days`, and remove what was deleted `RESTORABLE_DAYS` ago; with `dry_run` only find it."""
        result = ModelMaintenance()
        for solution, aliases in registered_aliases(self.settings).items():
            report(f"Looking for refused versions of {solution}")
            self._expire(solution, aliases, result, dry_run=dry_run)
        report("Removing the files of runs that were deleted")
        result.removed = sorted(self._removable())
        if not dry_run and result.removed and self.settings.mlflow_server is None:
            self._collect_garbage(result.removed)
        report("Deleting the trials of searches")
        result.studies = ended_studies(self.settings, before=self._oldest)
        if not dry_run:
            for study in result.studies:
                delete_study(self.settings, study)
        return result

    @property
    def _oldest(self) -> datetime:
        return self.now - timedelta(days=self.settings.kept_run_days)

    def _expire(self, solution: str, aliases: Mapping[str, int], result: ModelMaintenance, *, dry_run: bool) -> None:
        versions = self.registry.every_version(solution)
        result.versions += len(versions)
        expendable = {model.version for model in self._expendable(solution, aliases, versions)}
        kept = {model.run_id for model in versions if model.version not in expendable}
        runs = runs_of_trainings(self.registry, solution)
        result.runs += len(runs)
        for run in runs:
            if run.info.run_id in kept or run.info.start_time >= self._oldest.timestamp() * 1000 or self._is_in_progress(run):
                continue
            refused = [model for model in versions if model.run_id == run.info.run_id]
            result.expired += [f"{model.solution} {model.version}" for model in refused]
            if not refused:
                result.abandoned.append(run.info.run_id)
            if not dry_run:
                for model in refused:
                    self.registry.withdraw(model)
                self._delete(run)

    def _expendable(
        self, solution: str, aliases: Mapping[str, int], versions: list[RegisteredModel]
    ) -> Iterator[RegisteredModel]:
        """Find versions that failed a gate or have no files, and that no deployment, prediction or recalibration names.

        Nor may an alias, but that of a candidate.
        """
        named = {version for alias, version in aliases.items() if not alias.startswith(CANDIDATE_PREFIX)}
        named |= self._predicting(solution)
        bases = {int(model.tags[RECALIBRATES_TAG]) for model in versions if RECALIBRATES_TAG in model.tags}
        for model in versions:
            is_ours = TRAINING_DATE_TAG in model.tags
            is_named = model.version in named | bases
            if is_ours and not model.is_usable and not is_named and not was_deployed(self.instance, model):
                yield model

    def _predicting(self, solution: str) -> Set[int]:
        relation = all_predictions(self.connection, solution, every_generation=True)
        if relation is None:
            return set()
        return {version for (version,) in self.connection.execute(f"SELECT DISTINCT {MODEL_VERSION} FROM {relation}").fetchall()}

    def _is_in_progress(self, run: "Run") -> bool:
        maker = self.instance.get_run_by_id(run.data.tags[MAKER_TAG])
        return maker is not None and not maker.is_finished

    def _delete(self, run: "Run") -> None:
        """Delete the trials below a run, its logged models, and at last itself: as long as it is there, the next maintenance finds it."""
        client = self.registry.client
        for trial in trials_below(self.registry, run):
            client.set_tag(trial.info.run_id, _EXPIRED_ON, self.now.date().isoformat())
            client.delete_run(trial.info.run_id)
        self.registry.delete_logged_models(run)
        client.set_tag(run.info.run_id, _EXPIRED_ON, self.now.date().isoformat())
        client.delete_run(run.info.run_id)

    def _removable(self) -> Iterator[str]:
        """The runs that maintenance deleted more than `RESTORABLE_DAYS` ago. Those that a person deleted are theirs."""
        last = (self.now - timedelta(days=RESTORABLE_DAYS + 1)).date().isoformat()
        experiments = [experiment.experiment_id for experiment in self.registry.client.search_experiments()]
        for run in self.registry.find_runs(experiments, f"tags.`{_EXPIRED_ON}` LIKE '%'", are_deleted=True):
            if run.data.tags[_EXPIRED_ON] <= last:
                yield run.info.run_id

    def _collect_garbage(self, run_ids: list[str]) -> None:
        """`mlflow gc`, which has the server remove the files and the database forget the runs and logged models."""
        from mlflow.cli import gc

        gc.main(
            [
                f"--older-than={RESTORABLE_DAYS}d",
                f"--backend-store-uri={self.settings.sqlalchemy_url(MLFLOW_DATABASE)}",
                f"--tracking-uri={self.settings.mlflow_url}",
                f"--run-ids={','.join(run_ids)}",
            ],
            standalone_mode=False,
        )
