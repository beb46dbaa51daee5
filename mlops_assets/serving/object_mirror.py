"""The bundles that servers of one machine follow in object storage: pulled, verified and kept in a folder, where links name them as ever.

The folder is that of `folder_store.py`. One process of the machine at a time looks, for all. While the store is away, or a bundle there is
not what its signed record says, the links stay as they are, also for a process that starts.
"""

import fcntl
import logging
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from mlops_assets.clients.bundle_record import folder_files, parse_served, tree_hash, write_served
from mlops_assets.clients.notices import FOLLOWED
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.object_storage import ObjectFolder, StorageAwayError, StorageError, StoredObject
from mlops_assets.schema.solution import Serving
from mlops_assets.serving import active
from mlops_assets.serving.bundle import BundleError
from mlops_assets.serving.bundle_store import StoredBundle, prune
from mlops_assets.serving.folder_store import FolderBundles, FolderStore

BUNDLES, SERVED = "bundles", "served"

FOLLOW_SECONDS = 3.0
"""How often the store is asked what changed. A notice on the event stream has it asked at once."""

_RETRY_SECONDS = 30.0
"""How long until a bundle that was refused is tried again."""

_LOCK = ".followed.lock"
_PROBLEM = ".problem-"
_log = logging.getLogger(__name__)


def stored_name(bundle: StoredBundle) -> str:
    """The folder of a bundle among those of its solution."""
    return f"{bundle.version}-{bundle.sha256}"


def fetch_bundle(stored: ObjectFolder, bundle: StoredBundle, files: Collection[str], cache: FolderBundles) -> Path:
    """The folder of `bundle` on this machine. Its `files` are fetched from the solution's folder `stored` unless they are here.

    Raises BundleError when what is stored is not the bundle; nothing of it is kept then.
    """
    folder = cache.get(bundle)
    if folder is not None and tree_hash(folder_files(folder)) == bundle.sha256:
        return folder
    source = stored.below(stored_name(bundle))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve()
        for name in files:
            path = (root / name).resolve()
            content = source.read(name) if path.is_relative_to(root) else None
            if content is None:
                raise BundleError(f"{source.url}/{name} is missing, or is no name of a file of a bundle.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if tree_hash(folder_files(root)) != bundle.sha256:
            raise BundleError(f"The files in {source.url} were changed: their SHA-256 is not the one of the bundle.")
        cache.put(bundle, root)
    folder = cache.get(bundle)
    assert folder is not None  # it was just put there
    return folder


class MirroredBundles(FolderBundles):
    """The bundles of one solution on this machine, with what could not be followed."""

    def problems(self) -> Sequence[str]:
        """Why an alias names another bundle in object storage than here."""
        return [path.read_text() for path in sorted(self.folder.glob(f"{_PROBLEM}*"))]


class BundleMirror:
    """What of the object storage in `storage` the servers follow, in the folder `directory`; `kept` of the newest bundles stay there."""

    def __init__(self, storage: ObjectFolder, directory: Path, signer: Signer, kept: int):
        self._stored, self._served = storage.below(BUNDLES), storage.below(SERVED)
        self._directory, self._signer, self._kept = directory, signer, kept
        self._seen: dict[str, StoredObject] = {}
        self._newest = 0
        self._refused: dict[str, tuple[bytes, float]] = {}
        self._reported: str | None = None

    def solutions(self) -> Sequence[str]:
        """Those on this machine, after a look at the store where one is due."""
        self._look_when_due()
        return FolderStore(self._directory).solutions()

    def of(self, solution: str) -> MirroredBundles:
        """The bundles of `solution` on this machine, after a look at the store where one is due."""
        self._look_when_due()
        return self._bundles(solution)

    def _bundles(self, solution: str) -> MirroredBundles:
        return MirroredBundles(self._directory / solution)

    def _look_when_due(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._is_due():
            with (self._directory / _LOCK).open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return  # another process looks
                self._look()

    def _is_due(self) -> bool:
        try:
            return time.time() - (self._directory / FOLLOWED).stat().st_mtime > FOLLOW_SECONDS
        except FileNotFoundError:
            return True  # nobody looked yet, or a notice came

    def _look(self) -> None:
        # Before it is asked: a notice that comes meanwhile has it asked again.
        (self._directory / FOLLOWED).touch()
        try:
            self._follow()
        except (StorageAwayError, StorageError) as error:
            if (text := str(error).partition("\n")[0]) != self._reported:
                _log.warning("%s What serves goes on; new bundles wait.", text)
                self._reported = text
        else:
            if self._reported is not None:
                _log.warning("The object store is back.")
                self._reported = None

    def _follow(self) -> None:
        objects = self._served.objects()
        for name, stored in objects.items():
            # A store gives the time in whole seconds: what was written in the second of the last look may have been written again.
            if (self._seen.get(name) != stored or stored.modified >= self._newest) and self._take(name):
                self._seen[name] = stored
        self._newest = max((stored.modified for stored in objects.values()), default=0)
        for solution in {name.partition("/")[0] for name in objects}:
            bundles = self._bundles(solution)
            for alias in bundles.aliases():
                if f"{solution}/{alias}.json" not in objects:
                    bundles.deactivate(alias)
            for problem in bundles.folder.glob(f"{_PROBLEM}*"):
                if f"{solution}/{problem.name.removeprefix(_PROBLEM)}.json" not in objects:
                    problem.unlink(missing_ok=True)
            prune(bundles, needed=(), keep=self._kept)

    def _take(self, name: str) -> bool:
        """Have the folder follow one object. Returns whether it does."""
        solution, _, file = name.partition("/")
        content = self._served.read(name)
        if content is None:
            return False  # removed since it was listed
        former, until = self._refused.get(name, (b"", 0.0))
        if content == former and time.monotonic() < until:
            return False
        bundles, alias = self._bundles(solution), file.removesuffix(".json")
        bundles.folder.mkdir(parents=True, exist_ok=True)
        problem = bundles.folder / f"{_PROBLEM}{alias}"
        try:
            if file == active.OPTIONS_FILE:
                bundles.write_options(Serving.model_validate_json(content))
            else:
                self._switch(bundles, solution, alias, content)
        except (BundleError, ValueError) as error:
            self._refused[name] = (content, time.monotonic() + _RETRY_SECONDS)
            text = f"{self._served.url}/{name} is not followed: {error}"
            problem.write_text(text)
            _log.error("%s What served before goes on.", text)
            return False
        problem.unlink(missing_ok=True)
        return True

    def _switch(self, bundles: FolderBundles, solution: str, alias: str, content: bytes) -> None:
        """Fetch the bundle that an alias names, and move the link. Raises BundleError unless it is the one that passed its gates."""
        record, signature = parse_served(content)
        if record.solution != solution or not record.is_signed(self._signer, "accepted", signature):
            raise BundleError("its signature does not fit: it was changed, or belongs to another installation.")
        bundle = StoredBundle(record.version, record.sha256)
        folder = fetch_bundle(self._stored.below(solution), bundle, record.files, bundles)
        write_served(folder, content)
        if bundles.active(alias) != folder.resolve():
            active.activate(folder, alias)
            _log.info("%s %s: version %d is here.", solution, alias, record.version)
