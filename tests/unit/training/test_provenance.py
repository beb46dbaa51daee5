"""Identifiers of code: the same for the same code, another for another."""

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.core.project import current_project
from mlops_assets.training.provenance import code_versions, git_commit, manifest_hash

MANIFEST = current_project().dbt_manifest


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return json.loads(MANIFEST.read_text())


def test_when_and_where_a_manifest_was_made_does_not_matter(manifest: dict[str, Any]) -> None:
    moved = copy.deepcopy(manifest)
    moved["metadata"] = {"generated_at": "another day"}
    moved["nodes"] = dict(reversed(moved["nodes"].items()))
    for node in moved["nodes"].values():
        node["root_path"], node["created_at"] = "/elsewhere", 1.0
    assert manifest_hash(moved) == manifest_hash(manifest)


def test_code_that_changed_has_another_hash(manifest: dict[str, Any]) -> None:
    model = next(name for name in manifest["nodes"] if name.startswith("model."))
    macro = next(iter(manifest["macros"]))
    changes = [("nodes", model, "checksum"), ("nodes", model, "columns"), ("macros", macro, "macro_sql")]
    hashes = {manifest_hash(manifest)}
    for section, name, field in changes:
        changed = {**manifest, section: {**manifest[section], name: {**manifest[section][name], field: "changed"}}}
        hashes.add(manifest_hash(changed))
    assert len(hashes) == 4


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_commit_with_changes_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_COMMIT", "of the image")
    git(tmp_path, "init", "-q")
    (tmp_path / "code").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(tmp_path) == commit
    (tmp_path / "code").write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_without_a_history_the_variable_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("GIT_COMMIT", raising=False)
    assert git_commit(tmp_path) is None
    monkeypatch.setenv("GIT_COMMIT", "abc")
    assert git_commit(tmp_path) == "abc"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) == "abc"


def test_all_that_can_be_told_is_told() -> None:
    versions = code_versions(MANIFEST)
    assert {"dbt_manifest", "requirements_lock"} <= set(versions)
    assert all(versions.values())
