"""The model registry: the versions of a solution's model in MLflow, their aliases, and the signed records of their files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mlops_assets.access.credentials import access_token
from mlops_assets.clients.aliases import CHALLENGER, CHAMPION, segment_alias
from mlops_assets.clients.bundle_record import (
    ACCEPTANCE_TAG,
    BUNDLE_TAG,
    RECORD_TAG,
    REFERENCE_RECORD_TAG,
    BundleRecord,
    EvidenceError,
    Precision,
    TrainingIdentity,
    accepted_record,
    folder_files,
    reference_record,
    registered_record,
)
from mlops_assets.clients.registered_model import (
    COMPLETE,
    COMPLETE_TAG,
    ENGINE_REASON_TAG,
    ENGINE_TAG,
    GATES_FAILED,
    GATES_PASSED,
    GATES_TAG,
    REJECTION_TAG,
    WITHDRAWN,
    RegisteredModel,
)
from mlops_assets.clients.registry_aliases import remove_challenger
from mlops_assets.clients.signatures import Signer
from mlops_assets.clients.tracking_server import ABSENT, TrackingServer
from mlops_assets.clients.trusted_types import RegistryError, trusted_types
from mlops_assets.core.settings import Settings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from sklearn.pipeline import Pipeline

BUNDLE_ARTIFACT, REFERENCE_ARTIFACT = "bundle", "reference"

_LONGEST_TAG = 4000


@dataclass(frozen=True)
class ModelRegistry(TrackingServer):
    """Access to one MLflow server. A solution's model is registered under the solution's name.

    MLflow's tags can be written by others: what decides about a version is signed by `signer`.
    """

    signer: Signer

    @classmethod
    def from_settings(cls, settings: Settings) -> "ModelRegistry":
        """The registry of this installation."""
        return cls(
            url=settings.mlflow_url,
            token=access_token(settings),
            signer=Signer(settings.signing_key_file),
            authorities=settings.listening.authorities,
        )

    def register(self, solution: str, run_id: str, pipeline: "Pipeline", tags: Mapping[str, str]) -> RegisteredModel:
        """Store `pipeline` in skops format (no pickle) as a model of the run, and register it as the solution's next version.

        Raises RegistryError when the pipeline holds a type that skops must not load.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        trusted = trusted_types(pipeline)
        mlflow.set_tracking_uri(self.url)
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.sklearn.log_model(
                pipeline,
                name="model",
                serialization_format="skops",
                skops_trusted_types=trusted,
                pip_requirements=[],
            )
        try:
            self.client.create_registered_model(solution)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = self.client.create_model_version(
            solution, logged.model_uri, run_id=run_id, tags=dict(tags), model_id=logged.model_id
        )
        return _registered(version)

    def register_recalibration(self, solution: str, run_id: str, tags: Mapping[str, str]) -> RegisteredModel:
        """Register the next version of the solution, whose model is in the serving bundle of the run alone: nothing was fitted.

        MLflow loads no pipeline from it, which would answer without the recalibration.
        """
        source = f"runs:/{run_id}/{BUNDLE_ARTIFACT}"
        return _registered(self.client.create_model_version(solution, source, run_id=run_id, tags=dict(tags)))

    def describe_model(self, model: RegisteredModel, *, solution: str, version: str, tags: Mapping[str, str]) -> None:
        """Give the registered model the description `solution` and `tags`, and its version `model` the description `version`."""
        self.client.update_registered_model(model.solution, solution)
        for key, value in tags.items():
            self.client.set_registered_model_tag(model.solution, key, value)
        self.client.update_model_version(model.solution, str(model.version), version)

    def find(self, solution: str, tags: Mapping[str, str]) -> RegisteredModel | None:
        """The newest complete version of the solution that was registered with all `tags`, or None.

        A version whose training was interrupted has no bundle and does not count, nor does one whose tags somebody else wrote.
        """
        required = {**tags, COMPLETE_TAG: COMPLETE}
        conditions = [f"name = '{solution}'", *(f"tags.`{key}` = '{value}'" for key, value in required.items())]
        versions = self.client.search_model_versions(" AND ".join(conditions))
        newest_first = sorted(map(_registered, versions), key=lambda model: -model.version)
        return next((model for model in newest_first if self._is_registered_here(model)), None)

    def versions(self, solution: str) -> list[RegisteredModel]:
        """All complete versions of the solution, whoever registered them."""
        return list(
            map(_registered, self.client.search_model_versions(f"name = '{solution}' AND tags.`{COMPLETE_TAG}` = '{COMPLETE}'"))
        )

    def every_version(self, solution: str) -> list[RegisteredModel]:
        """All versions of the solution, whoever registered them, complete or not."""
        return list(map(_registered, self.client.search_model_versions(f"name = '{solution}'")))

    def withdraw(self, model: RegisteredModel) -> None:
        """Have nobody find the version any more, whose files go next. It stays with its tags; a training on the same data makes a new one."""
        self.tag(model.solution, model.version, {COMPLETE_TAG: WITHDRAWN})
        for alias, version in self.aliases(model.solution).items():
            if version == model.version:
                self.remove_alias(model.solution, alias)

    def get(self, solution: str, version: int) -> RegisteredModel:
        """One version of the solution. Raises RegistryError when there is none."""
        from mlflow.exceptions import MlflowException

        try:
            return _registered(self.client.get_model_version(solution, str(version)))
        except MlflowException as error:
            if error.error_code in ABSENT:
                raise RegistryError(f"{solution} has no version {version} in the model registry.") from error
            raise

    def by_alias(self, solution: str, alias: str) -> RegisteredModel | None:
        """The version that carries `alias`, or None."""
        from mlflow.exceptions import MlflowException

        try:
            return _registered(self.client.get_model_version_by_alias(solution, alias))
        except MlflowException as error:
            if error.error_code in ABSENT:
                return None
            raise

    def champion(self, solution: str, segment: str | None = None) -> RegisteredModel | None:
        """The version that predicts (the rows of `segment`), or None before the first promotion."""
        return self.by_alias(solution, segment_alias(CHAMPION, segment))

    def set_alias(self, solution: str, alias: str, version: int) -> None:
        """Give `alias` to `version`; no other version keeps it."""
        self.client.set_registered_model_alias(solution, alias, str(version))

    def remove_alias(self, solution: str, alias: str) -> None:
        """Take `alias` from whichever version has it, if any."""
        self.client.delete_registered_model_alias(solution, alias)

    def aliases(self, solution: str) -> dict[str, int]:
        """The version of each alias."""
        return {alias: int(version) for alias, version in self.client.get_registered_model(solution).aliases.items()}

    def accept(self, model: RegisteredModel, record: BundleRecord, *, engine: str, reason: str) -> None:
        """Record and sign that `model` passed its gates with the bundle of `record`, and which `engine` answers online, with the `reason`.

        Unless it is the champion, it is the challenger now.

        Raises EvidenceError when the version is another one by now.
        """
        if registered_record(self.signer, self.get(model.solution, model.version)) != record:
            raise EvidenceError(f"{model} was changed in MLflow while it was evaluated: evaluate it again.")
        reason = reason[:_LONGEST_TAG]
        signature = replace(record, engine=engine, engine_reason=reason).sign(self.signer, "accepted")
        tags = {ENGINE_TAG: engine, ENGINE_REASON_TAG: reason, **signature, GATES_TAG: GATES_PASSED}
        self.tag(model.solution, model.version, tags)
        if REJECTION_TAG in self.get(model.solution, model.version).tags:
            self.client.delete_model_version_tag(model.solution, str(model.version), REJECTION_TAG)
        champion = self.champion(model.solution, model.segment)
        if champion is None or champion.version != model.version:
            self.set_alias(model.solution, segment_alias(CHALLENGER, model.segment), model.version)

    def reject(self, model: RegisteredModel, because: str) -> None:
        """Record that `model` failed a gate: it cannot be promoted, and is no challenger. The champion stays what it is."""
        self.tag(model.solution, model.version, {GATES_TAG: GATES_FAILED, REJECTION_TAG: because[:_LONGEST_TAG]})
        if ACCEPTANCE_TAG in self.get(model.solution, model.version).tags:
            self.client.delete_model_version_tag(model.solution, str(model.version), ACCEPTANCE_TAG)
        remove_challenger(self, model)

    def tag(self, solution: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self.client.set_model_version_tag(solution, str(version), key, value)

    def log_bundle(self, model: RegisteredModel, folder: Path, *, training: TrainingIdentity, precision: Precision) -> None:
        """Store the serving bundle in `folder` with the model's run, and sign its record; from then on `find` finds the version."""
        self.log_files(model.run_id, folder, BUNDLE_ARTIFACT)
        self.sign_bundle(
            BundleRecord(
                solution=model.solution,
                version=model.version,
                run_id=model.run_id,
                training=training,
                precision=precision,
                files=folder_files(folder),
            )
        )

    def sign_bundle(self, record: BundleRecord) -> None:
        """Sign the record of a bundle as its registration does."""
        tags = {BUNDLE_TAG: record.sha256, RECORD_TAG: record.text, **record.sign(self.signer, "registered")}
        self.tag(record.solution, record.version, {**tags, COMPLETE_TAG: COMPLETE})

    def log_reference(self, model: RegisteredModel, folder: Path) -> None:
        """Store the monitoring reference in `folder` with the model's run, and sign its record."""
        self.log_files(model.run_id, folder, REFERENCE_ARTIFACT)
        self.sign_reference(model, folder)

    def sign_reference(self, model: RegisteredModel, folder: Path) -> None:
        """Sign that the monitoring reference of `model` is the one in `folder`."""
        record = replace(self.registered_record(model), files=folder_files(folder))
        tags = {REFERENCE_RECORD_TAG: record.text, **record.sign(self.signer, "reference")}
        self.tag(model.solution, model.version, tags)

    def registered_record(self, model: RegisteredModel) -> BundleRecord:
        """The signed record of the bundle of `model`. Raises EvidenceError without a genuine one."""
        return registered_record(self.signer, model)

    def accepted_record(self, model: RegisteredModel) -> tuple[BundleRecord, str]:
        """The record of a version that passed its gates, with the signature of its evaluation. Raises EvidenceError for any other."""
        return accepted_record(self.signer, model)

    def reference_record(self, model: RegisteredModel) -> BundleRecord:
        """The signed record of the monitoring reference of `model`. Raises EvidenceError without a genuine one."""
        return reference_record(self.signer, model)

    def has_reference(self, model: RegisteredModel) -> bool:
        """Whether a monitoring reference was stored for `model`: its evaluation does so."""
        return bool(self.client.list_artifacts(model.run_id, REFERENCE_ARTIFACT))

    def download_reference(self, model: RegisteredModel, folder: Path) -> Path:
        """The monitoring reference of `model`, downloaded below `folder`. Whoever reads it compares it with its record."""
        return self.download(model.run_id, REFERENCE_ARTIFACT, folder)

    def download_bundle(self, model: RegisteredModel, folder: Path) -> Path:
        """The serving bundle of `model`, downloaded below `folder`. Whoever loads it compares it with its record."""
        return self.download(model.run_id, BUNDLE_ARTIFACT, folder)

    def download_pipeline(self, model: RegisteredModel, folder: Path) -> bytes:
        """The skops file of the pipeline that `register` stored with `model`, downloaded below `folder`. It is not signed."""
        import mlflow

        # An address models:/... would be looked up at the server of the process, whichever that is.
        source = str(self.client.get_model_version(model.solution, str(model.version)).source)
        stored = self.client.get_logged_model(source.rpartition("/")[2]).artifact_location
        path = Path(mlflow.artifacts.download_artifacts(artifact_uri=stored, dst_path=str(folder), tracking_uri=self.url))
        [file] = path.rglob("*.skops")
        return file.read_bytes()

    def version_url(self, model: RegisteredModel) -> str:
        """Page of the version in the MLflow UI."""
        return f"{self.url}/#/models/{model.solution}/versions/{model.version}"

    def _is_registered_here(self, model: RegisteredModel) -> bool:
        try:
            registered_record(self.signer, model)
        except EvidenceError:
            return False
        return True


def _registered(version: "ModelVersion") -> RegisteredModel:
    return RegisteredModel(solution=version.name, version=int(version.version), run_id=str(version.run_id), tags=version.tags)
