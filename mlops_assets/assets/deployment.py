"""`deployment`: the promotion of a candidate whose gates passed; from then on its bundle predicts."""

import shutil
import tempfile
from datetime import date
from pathlib import Path

import dagster as dg

from mlops_assets.assets.evaluation import find_candidate
from mlops_assets.assets.execution import RETRIES, partition_date, permanent_failure
from mlops_assets.checks import rules
from mlops_assets.inputs import SolutionInputs
from mlops_assets.keys import DEPLOYMENT, EVALUATION, ONLINE_FEATURES
from mlops_assets.resources.model_registry import GATES_PASSED, GATES_TAG, ModelRegistry, RegisteredModel
from mlops_assets.settings import Settings


def build_deployment(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The deployment of one solution's candidate; its partition key is the training date."""
    key = inputs.key(DEPLOYMENT)

    @dg.asset(
        key=key,
        description="The version that predicts: the candidate becomes MLflow's champion and its bundle goes to the serving folder.",
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
        context: dg.AssetExecutionContext, registry: dg.ResourceParam[ModelRegistry], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult:
        training_date = partition_date(context)
        candidate = find_candidate(registry, inputs, training_date)
        require_passed_gates(candidate, training_date)
        require_parity(context.instance, inputs)
        previous = registry.champion(inputs.name)
        folder = champion_bundle(registry, settings, candidate)
        registry.promote(candidate, before=previous.version if previous else None)
        return dg.MaterializeResult(
            metadata={
                "model_version": candidate.version,
                "version_before": previous.version if previous else dg.MetadataValue.null(),
                "changed": previous is None or previous.version != candidate.version,
                "bundle": dg.MetadataValue.path(str(folder)),
                "mlflow": dg.MetadataValue.url(registry.version_url(candidate)),
            },
            check_results=[_check(inputs, registry, folder)],
        )

    return deployment


def require_passed_gates(candidate: RegisteredModel, training_date: date) -> None:
    """Raise Failure unless the candidate's evaluation passed every gate: blocking checks do not reach across runs."""
    if candidate.tags.get(GATES_TAG) != GATES_PASSED:
        raise permanent_failure(
            f"Version {candidate.version} of {candidate.solution} has not passed its gates "
            f"(tag {GATES_TAG} = {candidate.tags.get(GATES_TAG, 'missing')}): materialize {candidate.solution}/{EVALUATION} "
            f"for {training_date} and read its checks. The champion stays."
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


def _check(inputs: SolutionInputs, registry: ModelRegistry, folder: Path) -> dg.AssetCheckResult:
    from mlops_assets.serving.bundle import load_bundle

    champion = registry.champion(inputs.name)
    bundle = load_bundle(folder)
    deployed = bundle.contract.version
    return rules.CHAMPION_DEPLOYED.result(
        inputs.key(DEPLOYMENT),
        passed=champion is not None and champion.version == deployed,
        metadata={
            "registry": champion.version if champion else dg.MetadataValue.null(),
            "serving_folder": deployed,
            "model_sha256": bundle.contract.model_sha256,
        },
        description=None,
    )
