"""`deployment`: promotion and rollback. A version whose gates passed becomes the champion, and its bundle the one that serves.

Every change of the champion is a materialization of this asset; those, newest first, are the history of what was in production.
"""

import shutil
import tempfile
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.assets.evaluation import find_candidate
from mlops_assets.assets.execution import RETRIES, partition_date, permanent_failure
from mlops_assets.checks import rules
from mlops_assets.inputs import SolutionInputs
from mlops_assets.keys import DEPLOYMENT, EVALUATION, ONLINE_FEATURES
from mlops_assets.resources.model_registry import (
    GATES_PASSED,
    GATES_TAG,
    TRAINING_DATE_TAG,
    ModelRegistry,
    RegisteredModel,
    RegistryError,
)
from mlops_assets.serving.active import CHAMPION_LINK, activate, linked_bundle, write_options
from mlops_assets.settings import Settings

if TYPE_CHECKING:
    from mlops_assets.serving.bundle import Bundle

DEPLOYED_TAG = "deployed_by_run"
"""On every version that was the champion once: the Dagster run that promoted it first."""


class DeploymentConfig(dg.Config):
    """Run configuration: which version to promote (default: the candidate of the training date), who asks, and why."""

    version: int | None = None
    actor: str = "dagster"
    reason: str = "the candidate passed its gates"


def build_deployment(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The deployment of one solution; its partition key is the training date of the version that becomes the champion."""
    key = inputs.key(DEPLOYMENT)

    @dg.asset(
        key=key,
        description=(
            "The version that predicts. Materializing promotes the training date's candidate, or with `version` in the run "
            "configuration any version that passed its gates: that is how to roll back."
        ),
        owners=inputs.solution.owners,
        group_name=inputs.name,
        kinds={"mlflow", "onnx"},
        tags=inputs.tags(DEPLOYMENT),
        partitions_def=inputs.partitions,
        deps=[inputs.key(EVALUATION), inputs.key(ONLINE_FEATURES)],
        check_specs=[rules.CHAMPION_DEPLOYED.spec(key)],
        retry_policy=RETRIES,
        pool=f"{inputs.name}_deployment",
    )
    def deployment(
        context: dg.AssetExecutionContext,
        config: DeploymentConfig,
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult:
        chosen = choose_version(registry, inputs, partition_date(context), config.version)
        require_passed_gates(chosen)
        if DEPLOYED_TAG not in chosen.tags:
            # A version that served before may come back whatever the store says: a rollback must not wait for a repair.
            require_parity(context.instance, inputs)
        bundle = verified_bundle(champion_bundle(registry, settings, chosen))
        before = version_before(context.instance, registry, inputs)
        registry.promote(chosen, before=before)
        write_options(bundle.path.parent, inputs.solution.serving)
        activate(bundle.path, CHAMPION_LINK)
        if DEPLOYED_TAG not in chosen.tags:
            registry.tag(inputs.name, chosen.version, {DEPLOYED_TAG: context.run.run_id})
        return dg.MaterializeResult(
            metadata={
                "model_version": chosen.version,
                "version_before": dg.MetadataValue.null() if before is None else before,
                "changed": before != chosen.version,
                "actor": config.actor,
                "reason": config.reason,
                "gates": chosen.tags[GATES_TAG],
                "bundle": dg.MetadataValue.path(str(bundle.path)),
                "mlflow": dg.MetadataValue.url(registry.version_url(chosen)),
            },
            check_results=[_check(inputs, registry, settings)],
        )

    return deployment


def choose_version(registry: ModelRegistry, inputs: SolutionInputs, training_date: date, version: int | None) -> RegisteredModel:
    """The version asked for, or the candidate of `training_date`. Raises Failure when it does not exist or has another date."""
    if version is None:
        return find_candidate(registry, inputs, training_date)
    try:
        chosen = registry.get(inputs.name, version)
    except RegistryError as error:
        raise permanent_failure(f"{error} `mlops history {inputs.name}` lists those that served.") from error
    if (trained_for := chosen.tags.get(TRAINING_DATE_TAG)) != training_date.isoformat():
        raise permanent_failure(
            f"Version {version} of {inputs.name} was trained for {trained_for}: materialize that partition, not {training_date}."
        )
    return chosen


def require_passed_gates(candidate: RegisteredModel) -> None:
    """Raise Failure unless the candidate's evaluation passed every gate: blocking checks do not reach across runs."""
    if candidate.tags.get(GATES_TAG) != GATES_PASSED:
        raise permanent_failure(
            f"Version {candidate.version} of {candidate.solution} has not passed its gates "
            f"(tag {GATES_TAG} = {candidate.tags.get(GATES_TAG, 'missing')}): materialize {candidate.solution}/{EVALUATION} "
            f"for {candidate.tags.get(TRAINING_DATE_TAG)} and read its checks. The champion stays."
        )


def require_parity(instance: dg.DagsterInstance, inputs: SolutionInputs) -> None:
    """Raise Failure unless the last comparison of the online store with the lake found no difference, in whichever run it was."""
    rule = rules.ONLINE_OFFLINE_PARITY
    key = dg.AssetCheckKey(inputs.key(ONLINE_FEATURES), rule.name)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
    evaluation = record.event.asset_check_evaluation if record and record.event else None
    if evaluation is None:
        raise permanent_failure(f"Materialize {inputs.name}/{ONLINE_FEATURES} first: its check {rule.name} has never run.")
    if not evaluation.passed:
        raise permanent_failure(
            f"{inputs.name}/{ONLINE_FEATURES} failed its check {rule.name}: {evaluation.description}. Materialize it with "
            "`rebuild: true` and read the check. The champion stays."
        )


def version_before(instance: dg.DagsterInstance, registry: ModelRegistry, inputs: SolutionInputs) -> int | None:
    """The version of the newest deployment, whatever its partition; without any, the registry's champion.

    The history comes first: an alias that somebody moved in MLflow is a change to record, not the state before it.
    """
    records = instance.fetch_materializations(inputs.key(DEPLOYMENT), limit=1).records
    if records and records[0].asset_materialization:
        return int(str(records[0].asset_materialization.metadata["model_version"].value))
    champion = registry.champion(inputs.name)
    return champion.version if champion else None


def champion_bundle(registry: ModelRegistry, settings: Settings, model: RegisteredModel) -> Path:
    """The folder of the model's serving bundle on this machine, fetched from the registry when it is not there yet.

    It appears complete or not at all, so that a server never reads half a bundle.
    """
    target = settings.serving_directory / model.solution / str(model.version)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
        fetched = registry.download_bundle(model, Path(scratch))
        try:
            fetched.rename(target)
        except OSError:
            # Another process was faster; its bundle is the same one.
            if not target.exists():
                raise
            shutil.rmtree(fetched)
    return target


def verified_bundle(folder: Path) -> "Bundle":
    """The bundle in `folder`. Raises Failure when it was altered or is incomplete, so that it never comes to predict."""
    from mlops_assets.serving.bundle import BundleError, load_bundle

    try:
        return load_bundle(folder)
    except BundleError as error:
        raise permanent_failure(
            f"{error} The champion stays. Remove {folder} to have the bundle fetched from the model registry again."
        ) from error


def _check(inputs: SolutionInputs, registry: ModelRegistry, settings: Settings) -> dg.AssetCheckResult:
    from mlops_assets.serving.bundle import load_bundle

    champion = registry.champion(inputs.name)
    folder = linked_bundle(settings.serving_directory / inputs.name, CHAMPION_LINK)
    bundle = load_bundle(folder) if folder else None
    return rules.CHAMPION_DEPLOYED.result(
        inputs.key(DEPLOYMENT),
        passed=champion is not None and bundle is not None and champion.version == bundle.contract.version,
        metadata={
            "registry": champion.version if champion else dg.MetadataValue.null(),
            "serving_folder": bundle.contract.version if bundle else dg.MetadataValue.null(),
            "model_sha256": bundle.contract.model_sha256 if bundle else dg.MetadataValue.null(),
        },
        description=None,
    )
