"""The store of bundles in a folder of this machine, `<serving directory>/<solution>/<version>/`, with links for the aliases (`active.py`)."""

import fcntl
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.clients.bundle_record import BundleRecord, folder_files, record_file, tree_hash, write_record
from mlops_assets.core.settings import Settings
from mlops_assets.serving import active
from mlops_assets.serving.bundle_store import BundleStore, SolutionBundles, StoredBundle

if TYPE_CHECKING:
    from mlops_assets.schema.solution import Serving

_LOCK = ".lock"


class FolderBundles:
    """The bundles in the folder of one solution. A bundle is found by its version; whoever loads it compares the SHA-256 of its files."""

    def __init__(self, folder: Path):
        self.folder = folder

    def put(self, bundle: StoredBundle, folder: Path) -> None:
        """Copy `folder` to its place, complete or not at all."""
        target = self._path(bundle)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".") as scratch:
            copy = Path(shutil.copytree(folder, Path(scratch) / "copy"))
            if target.exists():
                target.rename(Path(scratch) / "before")
            try:
                copy.rename(target)
            except OSError:
                # Another process was faster; its folder is as good.
                if not target.exists():
                    raise

    def get(self, bundle: StoredBundle) -> Path | None:
        """The folder of the version."""
        path = self._path(bundle)
        return path if path.is_dir() else None

    def stored(self) -> Sequence[StoredBundle]:
        """All folders of versions, the newest first."""
        folders = [path for path in self.folder.glob("[0-9]*") if path.is_dir() and path.name.isdecimal()]
        bundles = [StoredBundle(int(path.name), tree_hash(folder_files(path))) for path in folders]
        return sorted(bundles, reverse=True)

    def remove(self, bundle: StoredBundle) -> bool:
        """Remove the folder and the record beside it."""
        path = self._path(bundle)
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB) as is_locked:
            if not is_locked or any(self.active(alias) == path.resolve() for alias in self.aliases()):
                return False
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".") as scratch:
                # A reader sees the whole bundle or none.
                path.rename(Path(scratch) / path.name)
            record_file(path).unlink(missing_ok=True)
        return True

    @contextmanager
    def using(self) -> Iterator[None]:
        """Hold the folder's lock, together with others that use it."""
        with self._locked(fcntl.LOCK_SH):
            yield

    def activate(self, alias: str, record: BundleRecord, signature: str) -> None:
        """Write the record, then move the link."""
        path = self.folder / str(record.version)
        write_record(path, record, signature)
        active.activate(path, alias)

    def deactivate(self, alias: str) -> None:
        """Remove the link."""
        active.deactivate(self.folder, alias)

    def active(self, alias: str) -> Path | None:
        """The folder behind the link."""
        return active.linked_bundle(self.folder, alias)

    def aliases(self) -> Collection[str]:
        """The names of the links."""
        return sorted(path.name for path in self.folder.glob("[!.]*") if path.is_symlink())

    def read_options(self) -> "Serving":
        """Return the content of the file. Raises pydantic.ValidationError when it is not valid."""
        return active.read_options(self.folder)

    def write_options(self, options: "Serving") -> None:
        """Write the file."""
        active.write_options(self.folder, options)

    def _path(self, bundle: StoredBundle) -> Path:
        return self.folder / str(bundle.version)

    @contextmanager
    def _locked(self, operation: int) -> Iterator[bool]:
        """The lock of the folder, which ends with its process; False when it cannot be had at once and `operation` does not wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("w") as file:
            try:
                fcntl.flock(file, operation)
            except BlockingIOError:
                yield False
                return
            yield True


class FolderStore:
    """The folders of all solutions in `directory`."""

    def __init__(self, directory: Path):
        self.directory = directory

    def solutions(self) -> Sequence[str]:
        """The names of the folders."""
        if not self.directory.is_dir():
            return []
        return sorted(path.name for path in self.directory.glob("[!.]*") if path.is_dir())

    def of(self, solution: str) -> SolutionBundles:
        """The folder of a solution."""
        return FolderBundles(self.directory / solution)


class FolderStoreKind:
    """The folder in the state folder of the installation."""

    def open(self, settings: Settings) -> BundleStore:
        """The store in `serving/`."""
        return FolderStore(settings.serving_directory)


folder = FolderStoreKind()
