"""Approval of a version before it predicts for the first time: the rule of the check, and what a run of the deployment records of it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import dagster as dg

from mlops_assets.access.launchers import IDENTIFIED_BY_TAG, LAUNCHED_BY_TAG, OWNER
from mlops_assets.clients.approvals import ApprovalEntry, read_approvals, record_approval, words_about
from mlops_assets.clients.bundle_record import BundleRecord, EvidenceError
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.check_rules import CheckRule, Evidence
from mlops_assets.core.keys import DEPLOYMENT
from mlops_assets.core.settings import Settings
from mlops_assets.stages.execution import permanent_failure
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.acceptance import training_runs, was_deployed

APPROVAL = CheckRule(
    name="approval",
    description="A person approved the version before it predicts for the first time, as `deployment.approval` of the YAML asks.",
    blocking=False,
    evidence=Evidence(
        measured=("model_version", "decision", "by", "reason", "asked_by"),
        bound=("policy",),
        no_examples="A version is approved or not; no row or value is an example of it.",
    ),
)

_AUTOMATIC = ""
"""What vouches for the name of whoever is no person."""


@dataclass(frozen=True)
class Verdict:
    """What a deployment does about a version: deploy it or not. `latest` is the last word about it, the first ones are `asked_by`."""

    latest: ApprovalEntry
    asked_by: tuple[str, ...]

    @property
    def is_approved(self) -> bool:
        """Whether the version may predict."""
        return self.latest.step == "approved"

    @property
    def in_words(self) -> str:
        """The verdict in a sentence, with what to do while it waits."""
        entry = self.latest
        if entry.step == "asked":
            options = f'{entry.solution} --version {entry.version} --reason "..."'
            return f"version {entry.version} waits for approval since {entry.at:%Y-%m-%d %H:%M} UTC: mlops approve {options}, or mlops refuse"
        return f"version {entry.version} was {entry.step} by {entry.by}: {entry.reason}"

    def check_result(self, inputs: SolutionInputs) -> dg.AssetCheckResult:
        """The result of the check, with the evidence."""
        entry = self.latest
        return APPROVAL.result(
            inputs.key(DEPLOYMENT),
            passed=self.is_approved,
            metadata={
                "model_version": entry.version,
                "decision": "waits" if entry.step == "asked" else entry.step,
                "by": entry.by,
                "identified_by": entry.identified_by or "automation",
                "reason": entry.reason,
                "at": entry.at.isoformat(timespec="seconds"),
                "asked_by": ", ".join(self.asked_by),
                "bundle_sha256": entry.bundle_sha256,
                "policy": inputs.solution.deployment.approval,
            },
            description=self.in_words,
        )


def rollback_result(inputs: SolutionInputs, model: RegisteredModel) -> dg.AssetCheckResult:
    """The result of the check for a version that predicted before, and waits for nobody."""
    return APPROVAL.result(
        inputs.key(DEPLOYMENT),
        passed=True,
        metadata={
            "model_version": model.version,
            "decision": "not needed",
            "by": "",
            "reason": "it predicted before",
            "asked_by": "",
            "policy": inputs.solution.deployment.approval,
        },
        description=f"version {model.version} predicted before: a rollback waits for nobody",
    )


def approval_problem(
    instance: dg.DagsterInstance, settings: Settings, model: RegisteredModel, record: BundleRecord
) -> str | None:
    """Return the reason why `model`, of a solution that wants approval, may not predict; None where it was approved, or predicted before."""
    if was_deployed(instance, model):
        return None
    try:
        words = _words(settings, model, record)
    except EvidenceError as error:
        return str(error)
    if words and words[-1].step == "approved":
        return None
    return f"{model} was never approved: mlops promote {model.solution} --to {model.version}, then mlops approve."


def require_approval(
    instance: dg.DagsterInstance, settings: Settings, inputs: SolutionInputs, model: RegisteredModel, record: BundleRecord
) -> None:
    """Raise EvidenceError when the solution wants approval, and nobody gave it to `model`."""
    if inputs.solution.deployment.needs_approval and (problem := approval_problem(instance, settings, model, record)):
        raise EvidenceError(problem)


def settle_approval(
    context: dg.AssetExecutionContext,
    settings: Settings,
    inputs: SolutionInputs,
    model: RegisteredModel,
    record: BundleRecord,
    *,
    actor: str,
    reason: str,
    approve: bool | None,
) -> Verdict:
    """Record what this run says about `model`, which never predicted: that it is asked for (None), approved or refused.

    Nothing is recorded twice. Automation does not ask again for what a person refused. Raises Failure when nobody is known to have launched
    a run that decides, and when four eyes are asked for and these are the same two.
    """
    words = _words(settings, model, record)
    step: Literal["asked", "approved", "refused"] = "asked" if approve is None else "approved" if approve else "refused"
    tags = context.run.tags
    by, identified_by = tags.get(LAUNCHED_BY_TAG, actor), tags.get(IDENTIFIED_BY_TAG, _AUTOMATIC)
    entry = ApprovalEntry(
        step=step,
        solution=model.solution,
        version=model.version,
        segment=inputs.segment,
        bundle_sha256=record.sha256,
        by=by,
        identified_by=identified_by,
        reason=reason,
        run_id=context.run.run_id,
        at=datetime.now(UTC),
    )
    if approve is None:
        if not _is_new_question(words, entry):
            return _verdict(words)
    else:
        if entry.is_automatic:
            raise permanent_failure(f"No person is known to have launched this run, which would have {step} {model}.")
        if words and (words[-1].step, words[-1].by) == (step, by):
            return _verdict(words)  # the same run again, after an interruption
        if approve and inputs.solution.deployment.approval == "four_eyes":
            _require_other_eyes(context.instance, model, entry, words)
    record_approval(settings.approvals_file, Signer(settings.signing_key_file), entry)
    return _verdict([*words, entry])


def _words(settings: Settings, model: RegisteredModel, record: BundleRecord) -> list[ApprovalEntry]:
    entries = read_approvals(settings.approvals_file, Signer(settings.signing_key_file))
    return words_about(entries, solution=model.solution, version=model.version, bundle_sha256=record.sha256)


def _is_new_question(words: list[ApprovalEntry], entry: ApprovalEntry) -> bool:
    if not words:
        return True
    latest = words[-1]
    if latest.step == "approved" or entry.is_automatic:
        return False
    # Whoever asks too is no second pair of eyes.
    return latest.step == "refused" or entry.by not in {word.by for word in words if word.step == "asked"}


def _verdict(words: list[ApprovalEntry]) -> Verdict:
    asked_by = tuple(dict.fromkeys(word.by for word in words if word.step == "asked"))
    latest = words[-1]
    if latest.step == "asked":
        begin = max((number + 1 for number, word in enumerate(words) if word.step != "asked"), default=0)
        latest = words[begin]
    return Verdict(latest, asked_by)


def _require_other_eyes(
    instance: dg.DagsterInstance, model: RegisteredModel, entry: ApprovalEntry, words: list[ApprovalEntry]
) -> None:
    """Raise Failure unless whoever approves is another one than those who asked for the version, who are known, and launched its training."""
    if entry.by == OWNER:
        raise permanent_failure(
            "deployment.approval is four_eyes, and the owner's link names nobody: sign in, or approve by the command line as a user of "
            f"your own. {model} waits."
        )
    asked: dict[str, Any] = {word.by: "asked for it" for word in words if word.step == "asked"}
    if not asked:
        # Whoever did may be the one who approves: a run in a pod loses what it records.
        raise permanent_failure(
            f"deployment.approval is four_eyes, and no record tells who asked for {model}: mlops promote {model.solution} --to {model.version} "
            "asks, in an installation whose runs share a state folder."
        )
    for run_id in training_runs(instance, model):
        run = instance.get_run_by_id(run_id)
        if run is not None and (name := run.tags.get(LAUNCHED_BY_TAG)):
            asked.setdefault(name, f"launched its training (run {run_id})")
    if because := asked.get(entry.by):
        raise permanent_failure(
            f"deployment.approval is four_eyes: {entry.by} {because}, and another person has to approve it. {model} waits."
        )
