"""The rival of a candidate: the champion, as it can be evaluated on a hold-out that it has not seen."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.clients.aliases import CHAMPION, segment_alias
from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.core.settings import Settings
from mlops_assets.schema.duration import subtract_duration
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import fitted_version, read_bundle, read_gated_bundle, require_passed_gates
from mlops_assets.training.candidate_evaluation import ComparedChampion, comparison_problem
from mlops_assets.training.monitoring_reference import load_leads

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.best_version import Leads
    from mlops_assets.ml.comparison import MetricDifference
    from mlops_assets.serving.bundle import Bundle


def find_rival(
    instance: dg.DagsterInstance,
    registry: ModelRegistry,
    settings: Settings,
    inputs: SolutionInputs,
    *,
    candidate: RegisteredModel,
    bundle: "Bundle",
    holdout: "pa.Table",
    since: date | None,
) -> ComparedChampion:
    """The champion, with its bundle when the candidate can be compared with it. The `holdout` has no rows before `since`."""
    champion = present_champion(instance, registry, inputs)
    if champion is None:
        return ComparedChampion(model=None, bundle=None, reason="there is no champion to compare with")
    if champion.version == candidate.version:
        return ComparedChampion(model=champion, bundle=None, reason="the candidate is the champion")
    # An alias moved by hand to a weak version must not make it easy for the candidate.
    require_passed_gates(instance, registry, champion)
    if was_fitted_on_holdout(inputs, champion, candidate):
        later = f"version {champion.version} was trained for a later date, on rows of this hold-out"
        return ComparedChampion(model=champion, bundle=None, reason=later)
    fitted = fitted_version(registry, champion)
    seeing = [
        model
        for model in {champion.version: champion, fitted.version: fitted}.values()
        if registry.registered_record(model).is_refitted and has_seen_holdout(inputs, model, candidate, since)
    ]
    loaded = (read_gated_bundle if champion in seeing else read_bundle)(registry, settings, champion)
    if champion is not fitted and fitted in seeing:
        # The model of a recalibrated champion has seen it: that of before the refit, recalibrated alike, has not.
        loaded = _recalibrate_alike(read_gated_bundle(registry, settings, fitted), loaded)
    reason = comparison_problem(bundle.contract, loaded.contract, holdout)
    return ComparedChampion(
        model=champion, bundle=loaded if reason is None else None, reason=reason or "", is_gated_fit=bool(seeing)
    )


def _recalibrate_alike(bundle: "Bundle", recalibrated: "Bundle") -> "Bundle":
    """Return `bundle`, another fit of the same version, with the recalibration of `recalibrated`."""
    from mlops_assets.serving.recalibrated_model import recalibrate_bundle

    base = recalibrated.contract.recalibration
    assert base is not None
    return recalibrate_bundle(bundle, base, version=recalibrated.contract.version)


def has_seen_holdout(
    inputs: SolutionInputs, champion: RegisteredModel, candidate: RegisteredModel, since: date | None = None
) -> bool:
    """Whether a refit of `champion`, which a table without time has not, was fitted on rows of the hold-out of `candidate`.

    The hold-out has no rows before `since`.
    """
    begin = subtract_duration(date.fromisoformat(candidate.tags[TRAINING_DATE_TAG]), inputs.solution.training.holdout)
    return date.fromisoformat(champion.tags[TRAINING_DATE_TAG]) > max(begin, since or begin)


def was_fitted_on_holdout(inputs: SolutionInputs, champion: RegisteredModel, candidate: RegisteredModel) -> bool:
    """Whether `champion` was fitted on rows of the hold-out of `candidate` even before a refit, and no fit of it can be compared.

    Without time the same rows are held out for every date.
    """
    later = date.fromisoformat(champion.tags[TRAINING_DATE_TAG]) > date.fromisoformat(candidate.tags[TRAINING_DATE_TAG])
    return later and inputs.solution.spine.has_time


def present_champion(instance: dg.DagsterInstance, registry: ModelRegistry, inputs: SolutionInputs) -> RegisteredModel | None:
    """The version that predicts the rows of `inputs` now; of a segment without a champion of its own it is the solution's.

    Raises EvidenceError when a champion was deployed and its alias is gone: without a rival, a weak candidate would pass.
    """
    whole = replace(inputs, by_segment=False, segment=None)
    for scope in [inputs, whole] if inputs.segment else [whole]:
        if champion := registry.champion(inputs.name, scope.segment):
            return champion
        if scope.deployment_target.has_champion(instance):
            raise EvidenceError(
                f"The alias {segment_alias(CHAMPION, scope.segment)} of {inputs.name} was removed by hand. The sensor "
                "champions restores it within a minute; then materialize the evaluation again."
            )
    return None


def find_leads(
    registry: ModelRegistry,
    settings: Settings,
    candidate: RegisteredModel,
    *,
    champion: RegisteredModel | None,
    differences: "Mapping[str, MetricDifference]",
) -> "Leads":
    """Return the leads of the best versions over `candidate`: those over the `champion`, and the `differences` to it on the same rows.

    Without a comparison those that it has stay: so it is when the champion is evaluated again. Against a champion that reads other features,
    and for the first version of a segment, the chain begins anew. Raises EvidenceError when the reference of the champion is not genuine.
    """
    from mlops_assets.ml.best_version import leads_over_candidate

    if champion is None or not differences:
        try:
            return load_leads(registry, settings, candidate)
        except EvidenceError:
            # This evaluation is what makes the reference of the candidate genuine again.
            return {}
    over_champion = load_leads(registry, settings, champion) if champion.segment == candidate.segment else {}
    return leads_over_candidate(over_champion, champion.version, differences)
