"""Versions that wait for a person, and the run that approves or refuses one."""

from functools import partial

from mlops_assets.access.launchers import system_user
from mlops_assets.clients.approvals import ApprovalEntry, read_approvals, waiting_versions
from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.champion import registered_number
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.errors import StackError
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import Settings
from mlops_assets.operations.deployments import Deployment, deploy


def approval_entries(settings: Settings) -> list[ApprovalEntry]:
    """All that was asked, approved and refused, oldest first. Raises StackError when the record was changed."""
    try:
        return read_approvals(settings.approvals_file, Signer(settings.signing_key_file))
    except EvidenceError as error:
        raise StackError(str(error), remedy=f"Compare {settings.approvals_file} with the newest backup.") from error


def waiting(settings: Settings) -> list[ApprovalEntry]:
    """The versions that wait, oldest first, each with the question. Raises StackError as `approval_entries` does."""
    return waiting_versions(approval_entries(settings))


def decide(settings: Settings, solution: str, *, version: int, approve: bool, reason: str) -> Deployment | None:
    """Approve a version that waits, which deploys it, or refuse it; returns the deployment, None where there is none.

    Raises StackError when the version does not exist, or the run refuses the decision.
    """
    model = patiently(partial(registered_number, settings, solution, version))
    if model is None:
        raise StackError(f"{solution} has no version {version} in the model registry.", remedy="mlops approvals")
    return deploy(
        settings,
        solution,
        version=version,
        segment=model.segment,
        actor=system_user(),
        reason=reason,
        approve=approve,
        # Only a switch at once is reported, and a decision on a version that waits is none.
        report=lambda message: None,
    )
