"""`deployment`: promotion and rollback. A version whose gates passed becomes the champion, and its bundle the one that serves.

Every change of the champion is a materialization of this asset; those, newest first, are the history of what was in production.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.clients.trusted_types import RegistryError
from mlops_assets.core import check_rules
from mlops_assets.core.keys import DEPLOYMENT, EVALUATION, MODEL, ONLINE_FEATURES
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.approval import APPROVAL, require_approval, rollback_result, settle_approval
from mlops_assets.deployment.recording import Recorder
from mlops_assets.deployment.switching import placement_problem
from mlops_assets.runs.slots import CHAMPION
from mlops_assets.serving.active import champion_link
from mlops_assets.serving.bundle_store import open_bundle_store
from mlops_assets.stages.execution import RETRIES, model_of_run, permanent_failure
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.acceptance import was_deployed
from mlops_assets.training.bundle_reading import bundles_of, read_bundle, require_passed_gates
from mlops_assets.training.evaluation import find_candidate
from mlops_assets.training.kept_bundles import prune_bundles
from mlops_assets.training.recorded_checks import newest_result

if TYPE_CHECKING:
    from mlops_assets.serving.segments import Champions

DEPLOYED_TAG = "deployed_by_run"
"""On every version that was the champion once, for people: the Dagster run that promoted it first."""


class DeploymentConfig(dg.Config):
    """Run configuration: which version to promote (default: the candidate of the training date), who asks, and why.

    With `approve` whoever launched the run decides about a version that waits for approval: `true` deploys it, `false` refuses it.
    """

    version: int | None = None
    actor: str = "dagster"
    reason: str = "the candidate passed its gates"
    approve: bool | None = None


def build_deployment(solution_inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The deployment of one solution; its partition key is that of the version that becomes the champion."""
    key = solution_inputs.key(DEPLOYMENT)
    needs_approval = solution_inputs.solution.deployment.needs_approval

    @dg.asset(
        key=key,
        description=(
            "The version that predicts. Materializing promotes the training date's candidate, or with `version` in the run "
            "configuration any version that passed its gates: that is how to roll back."
        ),
        kinds={"mlflow", "onnx"},
        **solution_inputs.asset_attributes(DEPLOYMENT, slots=CHAMPION),
        partitions_def=solution_inputs.training_partitions,
        deps=[
            *(solution_inputs.key(stage) for stage in (MODEL, EVALUATION, ONLINE_FEATURES)),
            *_champion_of_all(solution_inputs),
        ],
        check_specs=[check_rules.CHAMPION_DEPLOYED.spec(key), *([APPROVAL.spec(key)] if needs_approval else [])],
        retry_policy=RETRIES,
        code_version="1",
        pool=f"{solution_inputs.name}_deployment",
        # The run succeeds of a version that waits for approval, and of one whose switch another run recorded.
        output_required=False,
    )
    @step
    def deployment(
        context: dg.AssetExecutionContext,
        config: DeploymentConfig,
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        training_date, inputs = model_of_run(context, solution_inputs)
        recorder = Recorder(context, registry, settings, inputs.deployment_target)
        if recorder.is_superfluous:
            context.log.info("Another run recorded this switch: nothing is left to do.")
            if needs_approval:
                yield rollback_result(inputs, choose_version(registry, inputs, training_date, config.version))
            yield _check(inputs, registry, settings, may_be_absent=True)
            return
        done = recorder.done_switch()
        chosen = choose_version(registry, inputs, training_date, config.version) if done is None else recorder.model_of(done)
        accepted = require_passed_gates(context.instance, registry, chosen) if done is None else None
        approvals: list[dg.AssetCheckResult] = []
        approved_by: str | None = None
        if accepted is None or was_deployed(context.instance, chosen):
            # A version that served before may come back whatever the store says, and whoever is asleep: a rollback waits for nothing.
            if accepted is not None and config.approve is not None:
                raise permanent_failure(f"{chosen} predicted before, and waits for nobody: mlops rollback {inputs.name}")
            if needs_approval:
                approvals = [rollback_result(inputs, chosen)]
        else:
            if config.approve is not False:
                require_parity(context.instance, inputs)
            if needs_approval:
                verdict = settle_approval(
                    context,
                    settings,
                    inputs,
                    chosen,
                    accepted[0],
                    actor=config.actor,
                    reason=config.reason,
                    approve=config.approve,
                )
                approvals, approved_by = [verdict.check_result(inputs)], verdict.latest.by
                if not verdict.is_approved:
                    context.log.info(f"Nothing is deployed: {verdict.in_words}")
                    yield from approvals
                    yield _check(inputs, registry, settings, may_be_absent=True)
                    return
            elif config.approve is not None:
                raise permanent_failure(f"{inputs.name} asks for no approval (deployment.approval): leave `approve` out.")
        bundles_of(settings, chosen).write_options(inputs.solution.serving)
        switched = recorder.switch(chosen, accepted, actor=config.actor, reason=config.reason, approved_by=approved_by)
        if DEPLOYED_TAG not in chosen.tags:
            registry.tag(inputs.name, chosen.version, {DEPLOYED_TAG: context.run.run_id})
        prune_bundles(registry, settings, inputs.name)
        yield dg.MaterializeResult(
            metadata=recorder.metadata(switched, chosen),
            check_results=[_check(inputs, registry, settings, may_be_absent=inputs.segment is not None), *approvals],
        )

    return deployment


def _champion_of_all(inputs: SolutionInputs) -> list[dg.AssetDep]:
    """Return the dependency of segments on the champion of their solution, which one without a champion of its own is given."""
    key = replace(inputs, by_segment=False).key(DEPLOYMENT)
    return [dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())] if inputs.by_segment else []


def choose_version(registry: ModelRegistry, inputs: SolutionInputs, training_date: date, version: int | None) -> RegisteredModel:
    """The version asked for, or the candidate of `training_date`. Raises Failure when it does not exist or is of another partition.

    A segment may be given the champion of its solution: it has none of its own then.
    """
    try:
        chosen = find_candidate(registry, inputs, training_date) if version is None else registry.get(inputs.name, version)
    except RegistryError as error:
        raise permanent_failure(f"{error} `mlops history {inputs.name}` lists those that served.") from error
    if (trained_for := chosen.tags.get(TRAINING_DATE_TAG)) != training_date.isoformat():
        raise permanent_failure(f"{chosen} was trained for {trained_for}: materialize that partition, not {training_date}.")
    if problem := placement_problem(chosen, inputs.segment, registry.champion(inputs.name)):
        raise permanent_failure(problem)
    return chosen


def require_parity(instance: dg.DagsterInstance, inputs: SolutionInputs) -> None:
    """Raise Failure unless the last comparison of the online store with the lake found no difference, in whichever run it was."""
    rule, asset = check_rules.ONLINE_OFFLINE_PARITY, f"{inputs.name}/{ONLINE_FEATURES}"
    result = newest_result(instance, dg.AssetCheckKey(inputs.key(ONLINE_FEATURES), rule.name))
    if result.evaluation is None:
        raise permanent_failure(f"Materialize {asset} first: its check {rule.name} {result.lacking}. The champion stays.")
    if not result.evaluation.passed:
        raise permanent_failure(
            f"{asset} failed its check {rule.name}: {result.evaluation.description}, and materialize it again. The champion stays."
        )


def load_champions(
    instance: dg.DagsterInstance, registry: ModelRegistry, settings: Settings, inputs: SolutionInputs
) -> "Champions":
    """The bundles that predict: the champion's, and those of the segments that have one. Raises Failure when there is no champion.

    An alias moved by hand in MLflow must not bring a version to predict that its gates refused: that is an EvidenceError.
    """
    from mlops_assets.serving.segments import Champions

    champion = registry.champion(inputs.name)
    if champion is None:
        is_asked = inputs.solution.deployment.approval != "none"
        remedy = (
            "a person has to approve a version that passed its gates: mlops approvals"
            if is_asked
            else f"materialize {inputs.name}/{DEPLOYMENT} for a training date"
        )
        raise permanent_failure(f"{inputs.name} has no champion yet: {remedy}.")
    if champion.segment is not None:
        raise permanent_failure(
            f"{champion}, the champion, was trained for the segment {champion.segment} alone: mlops rollback {inputs.name}"
        )
    names = inputs.solution.segments.values if inputs.solution.segments else []
    champions = [champion, *filter(None, (registry.champion(inputs.name, segment) for segment in names))]
    for model in champions:
        record, _ = require_passed_gates(instance, registry, model)
        require_approval(instance, settings, inputs, model, record)
    default, *others = (read_bundle(registry, settings, model) for model in champions)
    return Champions(default=default, segments=tuple(others))


def _check(inputs: SolutionInputs, registry: ModelRegistry, settings: Settings, *, may_be_absent: bool) -> dg.AssetCheckResult:
    """The check of the serving folder. A segment may be left to the solution's champion, and before the first deployment there is none."""
    from mlops_assets.serving.bundle_loading import load_deployed

    champion = registry.champion(inputs.name, inputs.segment)
    folder = open_bundle_store(settings).of(inputs.name).active(champion_link(inputs.segment))
    bundle = load_deployed(folder, registry.signer) if folder else None
    versions = (champion.version if champion else None, bundle.contract.version if bundle else None)
    present = may_be_absent or champion is not None
    named = ["no version" if version is None else f"version {version}" for version in versions]
    passed = present and versions[0] == versions[1]
    return check_rules.CHAMPION_DEPLOYED.result(
        inputs.key(DEPLOYMENT),
        passed=passed,
        metadata={
            "registry": dg.MetadataValue.null() if versions[0] is None else versions[0],
            "serving_folder": dg.MetadataValue.null() if versions[1] is None else versions[1],
            "model_sha256": bundle.contract.model_sha256 if bundle else dg.MetadataValue.null(),
        },
        description=None if passed else f"the serving folder holds {named[1]}, the champion of the registry is {named[0]}",
    )
