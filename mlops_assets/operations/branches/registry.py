"""The model registry in a branch: every version of the environment that it is of, with the files of those whose bundles are kept there.

A branch has a signing key of its own. What is genuine in the environment is signed anew, so that nothing of a branch is genuine elsewhere.
"""

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.clients.bundle_record import (
    ACCEPTANCE_TAG,
    BundleRecord,
    EvidenceError,
    accepted_record,
    reference_record,
    registered_record,
    served_record,
)
from mlops_assets.clients.registered_model import COMPLETE, COMPLETE_TAG, WITHDRAWN, RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.object_storage import ObjectFolder
from mlops_assets.core.settings import MLFLOW_DATABASE, Settings
from mlops_assets.operations.backup.databases import Moment, dump_database, restore_database
from mlops_assets.serving.bundle_store import BundleStore, open_bundle_store
from mlops_assets.serving.object_store import ObjectStore

if TYPE_CHECKING:
    import psycopg2.extensions

_ARTIFACTS = "mlflow-artifacts:/"
_SET_TAG = "UPDATE model_version_tags SET value = %s WHERE name = %s AND version = %s AND key = %s"
_FOLDERS = """
SELECT artifact_uri FROM runs WHERE run_uuid = ANY(%(runs)s)
UNION SELECT artifact_location FROM logged_models WHERE source_run_id = ANY(%(runs)s)
"""

Version = tuple[str, int]
"""A solution and the number of a version of its model."""


@dataclass(frozen=True)
class CopiedRegistry:
    """How many versions the registry of a branch names, and how many of them have their files there."""

    versions: int
    with_files: int


def copy_registry(production: Settings, branch: Settings, moment: Moment, scratch: Path) -> CopiedRegistry:
    """Fill the empty database of MLflow of `branch`, its artifacts and its bundles from those of `production` at the `moment`.

    `production` is only read. A version without files is withdrawn, as one whose bundle was removed.
    """
    import psycopg2

    dump_database(production, moment, MLFLOW_DATABASE, scratch, [])
    restore_database(branch, MLFLOW_DATABASE, scratch)
    signers = Signer(production.signing_key_file), Signer(branch.signing_key_file)
    kept = _copy_bundles(production, branch, *signers, scratch) if production.signing_key_file.exists() else set()
    connection = psycopg2.connect(branch.postgres_connection_string(MLFLOW_DATABASE))
    with contextlib.closing(connection), connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('model_versions') IS NULL")
        if cursor.fetchall() == [(True,)]:
            return CopiedRegistry(0, 0)  # its server never ran
        versions = _versions(cursor)
        kept |= _named_by_aliases(cursor)
        with_files = [version for version in versions if (version.solution, version.version) in kept]
        cursor.execute(_FOLDERS, {"runs": [version.run_id for version in with_files]})
        for (address,) in cursor.fetchall():
            _copy_artifacts(production, branch, address)
        for version in versions:
            tags = _signed_anew(version, *signers) if production.signing_key_file.exists() else {}
            if version not in with_files and version.tags.get(COMPLETE_TAG) == COMPLETE:
                tags[COMPLETE_TAG] = WITHDRAWN
            for key, value in tags.items():
                cursor.execute(_SET_TAG, [value, version.solution, version.version, key])
    return CopiedRegistry(len(versions), len(with_files))


def _versions(cursor: "psycopg2.extensions.cursor") -> list[RegisteredModel]:
    tags = defaultdict[Version, dict[str, str]](dict)
    cursor.execute("SELECT name, version, key, value FROM model_version_tags")
    for solution, number, key, value in cursor.fetchall():
        tags[solution, number][key] = value
    cursor.execute("SELECT name, version, run_id FROM model_versions ORDER BY name, version")
    return [
        RegisteredModel(solution=solution, version=number, run_id=run_id, tags=tags[solution, number])
        for solution, number, run_id in cursor.fetchall()
    ]


def _named_by_aliases(cursor: "psycopg2.extensions.cursor") -> set[Version]:
    cursor.execute("SELECT name, version FROM registered_model_aliases")
    return {(solution, int(number)) for solution, number in cursor.fetchall()}


def _copy_artifacts(production: Settings, branch: Settings, address: str) -> None:
    """Copy a folder of artifacts, which may be gone. Copied, not linked: what is written to a linked file is written to both."""
    relative = address.removeprefix(_ARTIFACTS).lstrip("/")
    source, target = production.mlflow_artifact_directory / relative, branch.mlflow_artifact_directory / relative
    if not address.startswith(_ARTIFACTS):
        return
    if production.storage is not None:
        ObjectFolder(production.mlflow_artifact_location).below(relative).download(target)
    elif source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)


def _signed_anew(version: RegisteredModel, theirs: Signer, ours: Signer) -> dict[str, str]:
    """The tags with the signatures of the branch, for what is genuine in the environment that it is of."""
    readers: tuple[Callable[[], dict[str, str]], ...] = (
        lambda: registered_record(theirs, version).sign(ours, "registered"),
        lambda: accepted_record(theirs, version)[0].sign(ours, "accepted"),
        lambda: reference_record(theirs, version).sign(ours, "reference"),
    )
    tags = dict[str, str]()
    for read in readers:
        # What nobody may use there, nobody may use here: it stays as it is.
        with contextlib.suppress(EvidenceError):
            tags |= read()
    return tags


def _copy_bundles(production: Settings, branch: Settings, theirs: Signer, ours: Signer, scratch: Path) -> set[Version]:
    """Copy every stored bundle, and let the aliases name those that predict there. Returns their versions."""
    kept = set[Version]()
    target = open_bundle_store(branch)
    # What it fetches is not laid beside what the servers of the environment have fetched.
    if production.storage is not None and production.bundle_store == "object_storage":
        source: BundleStore = ObjectStore(production, production.storage, cache=scratch / "bundles")
    else:
        source = open_bundle_store(production)
    for solution in source.solutions():
        bundles, copies = source.of(solution), target.of(solution)
        with bundles.using():
            for stored in bundles.stored():
                if (folder := bundles.get(stored)) is not None:
                    copies.put(stored, folder)
                    kept.add((solution, stored.version))
            for alias in bundles.aliases():
                if (record := _genuine(theirs, bundles.active(alias), kept)) is not None:
                    copies.activate(alias, record, record.sign(ours, "accepted")[ACCEPTANCE_TAG])
            copies.write_options(bundles.read_options())
    return kept


def _genuine(signer: Signer, bundle: Path | None, kept: Collection[Version]) -> BundleRecord | None:
    if bundle is None:
        return None
    try:
        record = served_record(signer, bundle)
    except EvidenceError:
        return None  # the servers of the environment refuse it too
    return record if (record.solution, record.version) in kept else None
