"""The review of a change as one Markdown report, for a file or a comment of a merge request."""

from collections.abc import Iterator
from pathlib import Path

from mlops_assets.operations.review.effects_report import draw_figures, render_effects
from mlops_assets.operations.review.gates import MEANINGS
from mlops_assets.operations.review.review import Review

MARKER = "<!-- mlops diff -->"
"""First line of a report, by which a program finds it among other comments."""

_SIGNS = {"passed": "✅", "failed": "❌", "allowed": "⚠️", "unknown": "❔"}
_KINDS = ("solution", "asset", "check", "job", "schedule", "sensor")
_MOST = 40
"""Lines of one list; a comment of GitHub holds 65,536 characters."""


def write_report(review: Review, path: Path) -> None:
    """Write the report of `review` to the file `path`, its figures into a folder beside it: no host of code shows images within a comment."""
    folder = path.with_name(f"{path.stem}_files")
    path.write_text(render_report(review, folder.name), encoding="utf-8")
    for name, content in draw_figures(review.effects).items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def render_report(review: Review, folder: str) -> str:
    """Return the report of `review`, whose figures are in `folder`."""
    return (
        "\n".join(
            [
                MARKER,
                *_verdict(review),
                *_gates(review),
                *_models(review),
                *_definitions(review),
                *_dbt(review),
                *render_effects(review.effects, folder),
            ]
        )
        + "\n"
    )


def _verdict(review: Review) -> Iterator[str]:
    failed = [gate.name for gate in review.gates if gate.outcome == "failed"]
    yield f"# {'Breaks: ' + ', '.join(failed) if failed else 'Nothing breaks'}"
    yield ""
    yield f"The working tree beside `{review.commit[:12]}`, where it parted from `{review.reference}`."
    yield ""


def _gates(review: Review) -> Iterator[str]:
    yield "| gate | | holds when it passes |"
    yield "|---|---|---|"
    for gate in review.gates:
        yield f"| {gate.name} | {_SIGNS[gate.outcome]} {gate.outcome} | {MEANINGS[gate.name]} |"
    yield ""
    for gate in review.gates:
        yield from _items([f"**{gate.name}**: {problem}" for problem in gate.problems])
        if gate.obstacle:
            yield f"- **{gate.name}**: unknown. {gate.obstacle}."
    yield ""


def _models(review: Review) -> Iterator[str]:
    if not review.broken_contracts:
        return
    yield "## Broken contracts"
    yield ""
    yield "| feature view | version | problem | solutions |"
    yield "|---|---|---|---|"
    for broken in review.broken_contracts:
        yield f"| {broken.view} | {broken.version} | {broken.problem} | {', '.join(broken.solutions) or 'none'} |"
    yield ""
    yield "A change of a column is a new version of the view, beside the one that live models read."
    yield ""
    if review.live_models is not None:
        yield f"Live models: {', '.join(review.live_models) or 'none'}. Broken: {len(review.broken_models)}."
        yield ""


def _definitions(review: Review) -> Iterator[str]:
    yield "## Definitions"
    yield ""
    if not review.definitions:
        yield "No asset, check, job, schedule, sensor or solution differs."
        yield ""
    for kind in _KINDS:
        changes = [change for change in review.definitions if change.kind == kind]
        if not changes:
            continue
        yield f"**{kind}s**"
        yield ""
        yield from _items(
            f"{change.change} `{change.name}`" + (f": {'; '.join(change.details)}" if change.details else "")
            for change in changes
        )
        yield ""


def _dbt(review: Review) -> Iterator[str]:
    yield "## dbt models"
    yield ""
    parts = (("modified", review.dbt.modified), ("computed from these", review.dbt.downstream), ("removed", review.dbt.removed))
    if not any(names for _, names in parts):
        yield "No dbt model differs."
    for label, names in parts:
        if names:
            yield f"- {label}: {', '.join(f'`{model_name(name)}`' for name in names)}"
    yield ""


def model_name(unique_id: str) -> str:
    """The name of a dbt node, with its version, from its id."""
    return unique_id.split(".", 2)[2]


def _items(lines: Iterator[str] | list[str]) -> Iterator[str]:
    listed = list(lines)
    yield from (f"- {line}" for line in listed[:_MOST])
    if len(listed) > _MOST:
        yield f"- and {len(listed) - _MOST} more"
