"""The switch of a champion: the move of its alias and of the link to its bundle. A run makes it, or at once the process that was asked.

Nothing here imports Dagster, whose import takes longer than the switch.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from uuid import uuid4

from mlops_assets.clients.aliases import CHAMPION, segment_alias
from mlops_assets.clients.bundle_record import BundleRecord, accepted_record, folder_files
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.registry_aliases import AliasRegistry, RestAliases, make_champion
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.switch_journal import SWITCH, PendingSwitch, Switch, SwitchJournal
from mlops_assets.serving.active import champion_link
from mlops_assets.serving.bundle_store import SolutionBundles, StoredBundle, open_bundle_store
from mlops_assets.training.evidence import RecordedEvent, predicted_before, rejection


@dataclass(frozen=True)
class Evidence:
    """The recorded materializations on which a return to a version rests, newest first.

    They are the `deployments` of the place that it comes to, whatever their training date, and the `evaluations` of the version's own.
    """

    deployments: Sequence[RecordedEvent]
    evaluations: Sequence[RecordedEvent]


def new_id() -> str:
    """The id of another switch."""
    return uuid4().hex


def is_left_to_solution(model: RegisteredModel, segment: str | None) -> bool:
    """Whether `model` takes from `segment` its own champion: it is that of the solution."""
    return segment is not None and model.segment is None


def placement_problem(model: RegisteredModel, segment: str | None, champion: RegisteredModel | None) -> str | None:
    """Return the reason why `model` cannot predict the rows of `segment`; None when it can. `champion` is that of the solution."""
    if model.segment not in (None, segment):
        return f"{model} was trained for the segment {model.segment} alone."
    if model.segment != segment and (champion is None or champion.version != model.version):
        return (
            f"Without a champion of its own the segment {segment} is predicted by that of {model.solution}, "
            f"version {champion.version if champion else 'none'}, and not by version {model.version}."
        )
    return None


def carry_out(
    registry: AliasRegistry,
    bundles: SolutionBundles,
    pending: PendingSwitch,
    model: RegisteredModel,
    accepted: tuple[BundleRecord, str],
) -> PendingSwitch:
    """Make `model` the champion, for which the stored bundle of `accepted` predicts from now on. Repeated, it changes nothing."""
    switch = pending.switch
    make_champion(registry, model, segment=switch.segment, before=switch.before)
    if is_left_to_solution(model, switch.segment):
        bundles.deactivate(champion_link(switch.segment))
    else:
        bundles.activate(champion_link(switch.segment), *accepted)
    return pending.note_done()


@contextmanager
def switched_at_once(
    settings: Settings, model: RegisteredModel, segment: str | None, evidence: Evidence, *, actor: str, reason: str
) -> Iterator[Switch | None]:
    """Switch back to `model`, and hold the switch in the block, in which it is to be recorded. Yields None where a run has to judge it.

    Only a version that predicted before comes back so, whose bundle is here and as it was signed: it waits for no approval and no check of
    the online store. Any doubt is left to the run of the deployment, which names it.
    """
    registry, journal = RestAliases(settings), SwitchJournal.of(settings, model.solution)
    bundles = open_bundle_store(settings).of(model.solution)
    with ExitStack() as held:
        switch = None
        with bundles.using():
            accepted = _accepted(settings, registry, model, segment, evidence)
            bundle = None if accepted is None else _intact_bundle(bundles, accepted[0])
            if accepted is not None and bundle is not None:
                with journal.deciding():
                    before = _before(registry, journal, model, segment, evidence)
                    if before is not None:
                        switch = Switch(
                            id=new_id(),
                            run_id=None,
                            solution=model.solution,
                            segment=segment,
                            version=model.version,
                            before=before,
                            actor=actor,
                            approved_by=None,
                            reason=reason,
                            bundle=bundle,
                            bundle_sha256=accepted[0].sha256,
                        )
                        carry_out(registry, bundles, held.enter_context(journal.begun(switch)), model, accepted)
        yield switch


def _accepted(
    settings: Settings, registry: AliasRegistry, model: RegisteredModel, segment: str | None, evidence: Evidence
) -> tuple[BundleRecord, str] | None:
    """The signed acceptance of a version that predicted before and may come to this place; None for any other."""
    signer = Signer(settings.signing_key_file)
    champion = registry.by_alias(model.solution, CHAMPION) if segment is not None else None
    if (
        placement_problem(model, segment, champion)
        or rejection(signer, model, evidence.evaluations)
        or not (is_left_to_solution(model, segment) or predicted_before(model, evidence.deployments))
    ):
        return None
    return accepted_record(signer, model)


def _intact_bundle(bundles: SolutionBundles, record: BundleRecord) -> str | None:
    """The folder of the stored bundle whose files are those of `record`; servers let the model answer its sample before they follow."""
    folder = bundles.get(StoredBundle(record.version, record.sha256))
    return str(folder) if folder is not None and folder_files(folder) == record.files else None


def _before(
    registry: AliasRegistry, journal: SwitchJournal, model: RegisteredModel, segment: str | None, evidence: Evidence
) -> int | None:
    """The version that predicts. None when it is `model`, or not the one that was deployed last, so that a run has to bring both together."""
    recorded = {event.metadata.get(SWITCH) for event in evidence.deployments}
    pending = [each for each in journal.pending(segment) if each.switch.id not in recorded]
    if any(each.switched_at is None for each in pending):
        return None
    versions = [each.switch.version for each in pending] or [
        event.metadata["model_version"] for event in evidence.deployments[:1]
    ]
    deployed = versions[-1] if versions else None
    champion = registry.by_alias(model.solution, segment_alias(CHAMPION, segment))
    is_as_deployed = segment is not None if champion is None else champion.version == deployed
    return deployed if is_as_deployed and deployed != model.version else None
