"""One training of a solution through the running Dagster, with fields of its training section overridden for that run alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mlops_assets.access.launchers import system_user
from mlops_assets.clients.asset_state import AssetState
from mlops_assets.clients.dagster_client import DagsterClient, RunState, model_partition
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import GATES_TAG, RegisteredModel
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.usage import declared_solutions
from mlops_assets.operations.approvals import waiting
from mlops_assets.operations.runs import poll_run
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.training_rules import override_training
from mlops_assets.schema.yaml_loader import read_yaml


@dataclass(frozen=True)
class CopiedModel:
    """A version of another environment that is copied, and the reason why it is to predict here."""

    environment: str
    version: int
    reason: str


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training came to: the version (None when there is none), its metrics on the hold-out, what the gates said.

    `succeeded` is whether a version was accepted: `rejected_because` names the gates of a refused candidate, whose run succeeded, and
    `problems` are the causes of a run that failed. `waits` is whether the version waits for approval. `skipped` says why nothing was fitted,
    and `recalibration` which version was recalibrated on which rows.
    """

    solution: str
    training_date: str
    run_url: str
    succeeded: bool
    version: int | None
    version_url: str | None
    estimator: str | None
    recalibration: str | None
    skipped: str | None
    metrics: Mapping[str, float]
    gates: str | None
    waits: bool
    rejected_because: str | None
    problems: Sequence[str]


def parse_override(text: str) -> tuple[str, Any]:
    """`training.seed=3` as a name and a value, read as YAML. Raises StackError when there is no = in it or no YAML after it."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise StackError(f"{text!r} is no override.", remedy="Write --set training.seed=3")
    try:
        return name.strip(), read_yaml(value)
    except yaml.YAMLError as error:
        raise StackError(f"The value of {name} is no YAML: {error}", remedy="Write --set 'name=value'") from error


def check_overrides(solution: str, overrides: Mapping[str, Any]) -> Solution:
    """The solution as its file and `overrides` say. Raises StackError when no valid file has it, or they do not fit the schema."""
    declared = declared_solutions(current_project().definitions_directory)
    if solution not in declared.solutions:
        wrong = "".join(f"\n{problem}" for problem in declared.problems)
        raise StackError(f"There is no solution {solution!r}.{wrong}", remedy="mlops status lists them.")
    try:
        return override_training(declared.solutions[solution], overrides)
    except ConfigurationError as error:
        raise StackError(str(error), remedy="docs/reference-yaml.md lists the fields of the training section.") from error


def default_training_date(client: DagsterClient, assets: Mapping[str, AssetState], solution: str, *, has_time: bool) -> str:
    """The first training date that may use all data there is: the one after the last partition of what the dataset needs.

    Raises StackError when there is no data yet.
    """
    dataset = assets[f"{solution}/training_dataset"]
    ends = [max(end for _, end in assets[key].ranges) for key in dataset.dependencies if key in assets and assets[key].ranges]
    if not ends:
        raise StackError(f"There is no data for {solution} yet.", remedy="mlops demo, or materialize its features in Dagster.")
    # Without time a model is trained on a snapshot, not on what was before.
    later = [key for key in client.partition_keys(dataset.key) if key > max(ends)] if has_time else []
    return later[0] if later else max(ends)


def newest_dataset_date(assets: Mapping[str, AssetState], solution: str) -> str:
    """The newest training date whose dataset is there. Raises StackError when there is none."""
    ends = [end for _, end in assets[f"{solution}/training_dataset"].ranges]
    if not ends:
        raise StackError(f"There is no training dataset of {solution} yet.", remedy=f"mlops train {solution}")
    return max(ends)


def train(
    settings: Settings,
    solution: str,
    *,
    date: str | None,
    segment: str | None,
    overrides: Mapping[str, Any],
    recalibrate: bool,
    copied: CopiedModel | None,
    deploy: bool,
    report: Callable[[RunState, Sequence[str]], None],
) -> TrainingOutcome:
    """Run the training stages for `date`; `report` hears how the run stands and what it logged since.

    With `segment` the model of that segment is trained, on the training dataset that is there. With `recalibrate` no model is fitted: the
    champion is recalibrated; with `copied` that version is copied. Without `deploy` the candidate stays a candidate. Raises StackError when
    the run cannot be started.
    """
    from mlops_assets.components.stages import stages_of
    from mlops_assets.core.keys import SEGMENT_STAGES

    declared = check_overrides(solution, overrides)
    client = DagsterClient.from_settings(settings)
    assets = client.assets()
    stages = tuple(SEGMENT_STAGES.values()) if segment else stages_of("training", declared)
    keys = [f"{solution}/{stage}" for stage in stages if deploy or not stage.endswith("deployment")]
    if missing := [key for key in keys if key not in assets]:
        raise StackError(f"Dagster has no asset {missing[0]}.", remedy="mlops status; after a change of YAML: mlops reload")
    chosen = date
    if chosen is None and segment:
        chosen = newest_dataset_date(assets, solution)
    chosen = chosen or default_training_date(client, assets, solution, has_time=declared.spine.has_time)
    partition = model_partition(chosen, segment)
    if partition not in client.partition_keys(keys[0]):
        raise StackError(f"{partition} is no partition of {keys[0]}.", remedy="They are listed in Dagster.")
    model, evaluation = (next(key for key in keys if key.endswith(stage)) for stage in ("model", "evaluation"))
    registry = ModelRegistry.from_settings(settings)
    configuration: dict[str, dict[str, Any]] = {model: {"overrides": dict(overrides)}} if overrides else {}
    if recalibrate:
        configuration = {model: {"recalibrate": _champion(registry, solution, segment).version}}
    if copied:
        deployment = next(key for key in keys if key.endswith("deployment"))
        configuration = {
            model: {"copy_from": copied.environment, "copy_version": copied.version},
            deployment: {"actor": system_user(), "reason": copied.reason},
        }
    purpose = f"promotion from {copied.environment}" if copied else "training" if deploy else "training without deployment"
    run_id = client.launch([assets[key] for key in keys], partition, partition, configuration, purpose=purpose)
    states = _follow(client, run_id, report)
    state, run_ids = states[-1], [each.run_id for each in states]
    made, evaluated = _made_by(client, run_ids, model), _made_by(client, run_ids, evaluation)
    version = made.get("model_version")
    registered = registry.get(solution, int(version)) if version is not None else None
    failed = state.status != "SUCCESS"
    refusals = [refusal for each in run_ids for refusal in client.refusals(each)]
    tags = registered.tags if registered and (evaluated or refusals) else {}
    return TrainingOutcome(
        solution=solution,
        training_date=chosen,
        run_url=client.run_url(state.run_id),
        succeeded=not failed and not refusals,
        version=registered.version if registered else None,
        version_url=registry.version_url(registered) if registered else None,
        estimator=made.get("estimator"),
        recalibration=made.get("recalibration"),
        skipped=made.get("skipped"),
        metrics={name: evaluated[name] for name in declared.metrics if isinstance(evaluated.get(name), float)},
        gates=tags.get(GATES_TAG),
        waits=deploy and registered is not None and _waits(settings, registered),
        rejected_because="; ".join(dict.fromkeys(refusals)) or None,
        problems=(client.failures(state.run_id) or [state.status]) if failed else [],
    )


def _waits(settings: Settings, model: RegisteredModel) -> bool:
    named = {(entry.solution, entry.version) for entry in waiting(settings)}
    return (model.solution, model.version) in named


def _champion(registry: ModelRegistry, solution: str, segment: str | None) -> RegisteredModel:
    """The version to recalibrate. Raises StackError when there is none."""
    champion = registry.champion(solution, segment)
    if champion is None:
        whose = f"the segment {segment} of {solution}" if segment else solution
        remedy = f"mlops train {solution}{f' --segment {segment}' if segment else ''}"
        raise StackError(f"There is no champion of {whose} to recalibrate.", remedy=remedy)
    return champion


def _follow(client: DagsterClient, run_id: str, report: Callable[[RunState, Sequence[str]], None]) -> list[RunState]:
    """The last state of the run, and of those that went on with it when it was interrupted."""
    ended: list[RunState] = []
    while True:
        cursor = None
        for state in poll_run(client, run_id):
            messages, cursor = client.messages(run_id, cursor)
            report(state, messages)
        ended.append(state)
        if state.followed_by is None:
            return ended
        run_id = state.followed_by


def _made_by(client: DagsterClient, run_ids: Sequence[str], key: str) -> dict[str, Any]:
    """Metadata of the newest materialization that the runs made of an asset, empty when they made none."""
    return next((each.metadata for each in client.materializations(key, 20) if each.run_id in run_ids), {})
