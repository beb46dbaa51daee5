"""`mlops diff` of a project in which a feature is renamed, a rule of the label changed, and a parameter of the model."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parcels import SOLUTION, SOURCE, VIEWS, current_project_is, declare, parcels_project
from typer.testing import CliRunner

from mlops_assets.cli.main import app
from mlops_assets.core.project import Project

VIEW = VIEWS[: VIEWS.index("    depot_parcels:")]

DEFINITIONS = """import dagster as dg
from mlops_assets.components.project import project_definitions

defs = dg.definitions(project_definitions)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project in a git repository, with one commit."""
    root = tmp_path_factory.mktemp("reviewed")
    project = parcels_project(root, module="reviewed_shop")
    declare(project, "parcels", SOURCE + VIEW)
    declare(project, "parcel_delay", SOLUTION.replace("distance_km]\n", "distance_km]\n    - {view: depot_history}\n"))
    (root / "reviewed_shop" / "definitions.py").write_text(DEFINITIONS)
    (root / ".gitignore").write_text("target/\nlogs/\ngenerated/\ndbt_packages/\n__pycache__/\n*.schema.json\n.mlops/\n")
    _git(root, "init", "--quiet", "--initial-branch=main")
    _git(root, "add", "--all")
    _git(root, "commit", "--quiet", "--message=Parcels")
    with current_project_is(root), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_HOME", str(root / ".mlops"))
        yield project


def _git(root: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
    subprocess.run(command, cwd=root, check=True, capture_output=True)


def _change(project: Project, folder: str, *changes: tuple[str, str]) -> None:
    path = project.definitions_directory / folder / "defs.yaml"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def _diff(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["diff", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_what_a_change_does_to_the_definitions(project: Project, tmp_path: Path) -> None:
    _change(project, "parcels", ("depot_late_rate_7d", "depot_late_share_7d"))
    _change(project, "parcel_delay", ("INTERVAL 24 HOUR", "INTERVAL 12 HOUR"), ("max_iter: 50", "max_iter: 40"))
    code, output = _diff("main", "--json", "--output", str(tmp_path / "review.md"))
    answer: dict[str, Any] = json.loads(output)
    assert code == 2
    assert answer["breaks"]
    details = {f"{change['kind']} {change['name']}": " ".join(change["details"]) for change in answer["definitions"]}
    assert "training.estimator.parameters.max_iter: 50 → 40" in details["solution parcel_delay"]
    assert "INTERVAL 24 HOUR → delivered_at - sent_at > INTERVAL 12 HOUR" in details["solution parcel_delay"]
    assert "- depot_late_rate_7d, + depot_late_share_7d" in details["asset features/depot_history"]
    assert "code_version" in details["asset parcel_delay/spine"]
    names = [name.rpartition(".")[2] for name in answer["dbt"]["modified"]]
    assert sorted(names) == ["depot_history", "parcel_delay_spine"]
    outcomes = {gate["name"]: gate for gate in answer["gates"]}
    assert outcomes["contracts"]["problems"] == ["depot_history version 1: depot_late_rate_7d removed or renamed (was DOUBLE)"]
    assert "not known which are live" in outcomes["live_models"]["obstacle"]
    assert (outcomes["definitions"]["problems"], answer["live_models"]) == ([], None)
    report = (tmp_path / "review.md").read_text()
    assert report.startswith("<!-- mlops diff -->\n# Breaks: contracts")
    assert "| depot_history | 1 | depot_late_rate_7d removed or renamed (was DOUBLE) | parcel_delay |" in report
    # Loading makes the token of an installation that has none. Nothing else is written, neither in the state nor in the repository.
    assert [path.name for path in (project.root / ".mlops").iterdir()] == ["access_token"]
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=project.root, capture_output=True, text=True, check=True)
    assert changed.stdout.split()[1::2] == ["reviewed_shop/defs/parcel_delay/defs.yaml", "reviewed_shop/defs/parcels/defs.yaml"]


def test_a_revision_that_does_not_exist_and_a_gate_that_does_not(project: Project) -> None:
    code, _ = _diff("no_such_branch")
    assert code == 1
    code, _ = _diff("main", "--allow", "contract")
    assert code == 1
