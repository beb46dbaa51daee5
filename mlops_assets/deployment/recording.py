"""Recording of switches: a run of the deployment records, in their order, its own and those that a command left to it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.clients.bundle_record import BundleRecord, EvidenceError
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import APPROVED_BY, COPIED_FROM_TAG, GATES_PASSED, TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.clients.trusted_types import RegistryError
from mlops_assets.core.deployment_target import LEFT_TO_SOLUTION, DeploymentTarget
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.switch_journal import SWITCH, SWITCH_TAG, SWITCHED_AT, PendingSwitch, Switch, SwitchJournal
from mlops_assets.deployment.switching import carry_out, is_left_to_solution, new_id
from mlops_assets.stages.execution import permanent_failure
from mlops_assets.training.bundle_reading import bundles_of, read_bundle, require_passed_gates

if TYPE_CHECKING:
    from mlops_assets.serving.bundle import Bundle

_RECENT = 100
"""The newest deployments among which a switch is looked for: one that is not recorded waits for half a minute, not for years."""


def recorded_switches(instance: dg.DagsterInstance, target: DeploymentTarget) -> set[str]:
    """The ids of the latest switches that the event log has, of all segments."""
    records = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=target.key), limit=_RECENT).records
    materializations = [record.asset_materialization for record in records]
    ids = [each.metadata[SWITCH].value for each in materializations if each is not None and SWITCH in each.metadata]
    return set(map(str, ids))


def deployable_bundle(registry: ModelRegistry, settings: Settings, model: RegisteredModel) -> "Bundle":
    """The bundle of `model`. Raises Failure when it was altered or is incomplete, so that it never comes to predict."""
    from mlops_assets.serving.bundle import BundleError

    try:
        return read_bundle(registry, settings, model)
    except BundleError as error:
        raise permanent_failure(f"The champion stays. {error}") from error


@dataclass(frozen=True)
class Recorder:
    """The recorder of one run of a deployment, whose champion is that of `target`."""

    context: dg.AssetExecutionContext
    registry: ModelRegistry
    settings: Settings
    target: DeploymentTarget

    @property
    def is_superfluous(self) -> bool:
        """Whether another run recorded the switch that this run is to record."""
        asked = self.context.run.tags.get(SWITCH_TAG)
        return asked is not None and asked in recorded_switches(self.context.instance, self.target)

    def done_switch(self) -> PendingSwitch | None:
        """The switch that this run has only to record: a command did it, or a former try of this run."""
        own = self._own(self._waiting())
        return own if own is not None and own.switched_at is not None else None

    def model_of(self, pending: PendingSwitch) -> RegisteredModel:
        """The version that a switch made the champion."""
        return self.registry.get(pending.switch.solution, pending.switch.version)

    def switch(
        self,
        model: RegisteredModel,
        accepted: tuple[BundleRecord, str] | None,
        *,
        actor: str,
        reason: str,
        approved_by: str | None,
    ) -> PendingSwitch:
        """Have `model` predict, after whatever is not recorded yet, which this run records. Without `accepted` that was done."""
        root = self.context.run.root_run_id or self.context.run.run_id
        bundles, journal = bundles_of(self.settings, model), self._journal
        with bundles.using(), ExitStack() as held:
            bundle = None if accepted is None else deployable_bundle(self.registry, self.settings, model)
            held.enter_context(journal.deciding())
            waiting = self._waiting()
            own = self._own(waiting)
            earlier = list(self._finish(waiting[: waiting.index(own)] if own else waiting))
            # The steps of a solution's deployments come one after the other: what was done and not recorded still is.
            if own is None:
                assert accepted is not None
                assert bundle is not None
                switch = Switch(
                    id=new_id(),
                    run_id=root,
                    solution=model.solution,
                    segment=self.target.segment,
                    version=model.version,
                    before=earlier[-1].switch.version if earlier else self._deployed_version(),
                    actor=actor,
                    approved_by=approved_by,
                    reason=reason,
                    bundle=str(bundle.path),
                    bundle_sha256=accepted[0].sha256,
                )
                own = held.enter_context(journal.begun(switch))
            if own.switched_at is None:
                assert accepted is not None
                own = carry_out(self.registry, bundles, own, model, accepted)
        for each in earlier:
            self._record(each)
        return own

    @property
    def _journal(self) -> SwitchJournal:
        return SwitchJournal.of(self.settings, self.target.solution)

    def _waiting(self) -> list[PendingSwitch]:
        """The switches that are not recorded, in their order."""
        if not (pending := self._journal.pending(self.target.segment)):
            return pending
        return self._journal.pending(self.target.segment, recorded_switches(self.context.instance, self.target))

    def _own(self, waiting: Sequence[PendingSwitch]) -> PendingSwitch | None:
        """The one of `waiting` that this run is to record: a command made it, or a former try of this run."""
        run = self.context.run
        asked, root = run.tags.get(SWITCH_TAG), run.root_run_id or run.run_id
        return next((each for each in waiting if each.switch.id == asked or each.switch.run_id == root), None)

    def _deployed_version(self) -> int | None:
        """The version of the newest deployment, whatever its training date; without any, the registry's champion.

        The history comes first: an alias that somebody moved in MLflow is a change to record, not the state before it.
        """
        recorded = self.target.newest_deployment(self.context.instance)
        if recorded is not None:
            return recorded.version
        solution = self.target.solution
        champion = self.registry.champion(solution, self.target.segment) or self.registry.champion(solution)
        return champion.version if champion else None

    def _finish(self, waiting: Sequence[PendingSwitch]) -> Iterator[PendingSwitch]:
        """Yield `waiting` once they are done: whoever began one died before. One whose version may not predict any more is forgotten."""
        for each in waiting:
            try:
                if each.switched_at is None:
                    model = self.model_of(each)
                    accepted = require_passed_gates(self.context.instance, self.registry, model)
                    deployable_bundle(self.registry, self.settings, model)
                    yield carry_out(self.registry, bundles_of(self.settings, model), each, model, accepted)
                else:
                    yield each
            except (EvidenceError, RegistryError, dg.Failure) as error:
                self.context.log.warning(f"Version {each.switch.version} does not predict as {each.switch.actor} wanted: {error}")
                each.forget()

    def _record(self, pending: PendingSwitch) -> None:
        """Record a switch that came before that of this run. A run of its own finds it done."""
        model = self.model_of(pending)
        partition = self.target.partition_key(model.tags[TRAINING_DATE_TAG])
        self.context.log_event(
            dg.AssetMaterialization(self.target.key, partition=partition, metadata=self.metadata(pending, model))
        )

    def metadata(self, pending: PendingSwitch, model: RegisteredModel) -> dict[str, Any]:
        """The metadata of the deployment of `model` by a switch that was done."""
        switch = pending.switch
        assert pending.switched_at is not None
        return {
            "model_version": switch.version,
            "version_before": dg.MetadataValue.null() if switch.before is None else switch.before,
            "changed": switch.before != switch.version,
            LEFT_TO_SOLUTION: is_left_to_solution(model, switch.segment),
            "actor": switch.actor,
            "reason": switch.reason,
            **({} if switch.approved_by is None else {APPROVED_BY: switch.approved_by}),
            "gates": GATES_PASSED,
            "recalibration": dg.MetadataValue.null() if model.recalibration is None else model.recalibration,
            **({COPIED_FROM_TAG: model.tags[COPIED_FROM_TAG]} if COPIED_FROM_TAG in model.tags else {}),
            "bundle": dg.MetadataValue.path(switch.bundle),
            "bundle_sha256": switch.bundle_sha256,
            "mlflow": dg.MetadataValue.url(self.registry.version_url(model)),
            SWITCHED_AT: pending.switched_at.isoformat(),
            SWITCH: switch.id,
        }
