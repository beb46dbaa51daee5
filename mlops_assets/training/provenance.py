"""The provenance of a model besides its data: dbt project, source code and packages, each as one short identifier."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from mlops_assets.core.project import current_project

_COMMIT_VARIABLE = "GIT_COMMIT"
_NODE_CONTENT = ("checksum", "config", "columns", "version")


def code_versions(manifest: Path) -> dict[str, str]:
    """`dbt_manifest`, `git_commit` and `requirements_lock`; what cannot be told is left out."""
    versions = {
        "dbt_manifest": manifest_hash(json.loads(manifest.read_text())),
        "git_commit": git_commit(current_project().root),
        "requirements_lock": _file_hash(current_project().root / "requirements.lock"),
    }
    return {name: value for name, value in versions.items() if value is not None}


def manifest_hash(manifest: dict[str, Any]) -> str:
    """16 hexadecimal digits of the models, tests, sources and macros of a dbt manifest, without times and paths of its making."""
    content = {
        "nodes": {name: {key: node.get(key) for key in _NODE_CONTENT} for name, node in manifest["nodes"].items()},
        "sources": {name: source["columns"] for name, source in manifest["sources"].items()},
        "macros": {name: macro["macro_sql"] for name, macro in manifest["macros"].items()},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def git_commit(folder: Path) -> str | None:
    """The commit checked out in `folder`, with `-dirty` when files were changed since; else the variable GIT_COMMIT; else None."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return os.environ.get(_COMMIT_VARIABLE)
    # A container image holds the code without its history.
    return answer.stdout.strip() if answer.returncode == 0 else os.environ.get(_COMMIT_VARIABLE)


def _file_hash(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None
