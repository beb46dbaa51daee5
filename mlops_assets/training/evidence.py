"""Rules of acceptance on recorded events, for whoever reads them from Dagster's storage or from its webserver. No Dagster."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from mlops_assets.clients.bundle_record import EvidenceError, accepted_record
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.signatures import Signer

GATES_PASSED_METADATA = "gates_passed"
"""Metadata of an evaluation: whether the version passed every gate."""


class RecordedEvent(Protocol):
    """A materialization of a stage: its run, empty where somebody reported it, and its metadata."""

    @property
    def run_id(self) -> str:
        """The id of the run."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The values by name."""
        ...


_Event = TypeVar("_Event", bound=RecordedEvent)


def rejection(signer: Signer, model: RegisteredModel, evaluations: Iterable[RecordedEvent]) -> str | None:
    """Return the reason why `model` may not predict, with the remedy; None when its evaluation signed that it passed every gate.

    `evaluations` are those of its training date, newest first. A signature that a later one withdrew, and somebody put back, does not count.
    """
    try:
        accepted_record(signer, model)
    except EvidenceError as error:
        return str(error)
    newest = next(of_version(model, evaluations), None)
    if newest is not None and newest.metadata.get(GATES_PASSED_METADATA) is False:
        return (
            f"{model} has not passed its gates (its newest evaluation, run {newest.run_id}, rejected it; the tags of its acceptance "
            f"are older{model.failed_gates}): read the checks of that run."
        )
    return None


def predicted_before(model: RegisteredModel, deployments: Iterable[RecordedEvent]) -> bool:
    """Whether one of `deployments` brought `model` to predict."""
    # One without a run was reported by somebody, and deployed nothing.
    return any(event.run_id for event in of_version(model, deployments))


def of_version(model: RegisteredModel, events: Iterable[_Event]) -> Iterator[_Event]:
    """Yield those of `events` that are about `model`."""
    return (event for event in events if event.metadata.get("model_version") == model.version)
