"""The store of bundles in object storage, for the stages that make bundles and say which of them predicts.

Below the address are `bundles/<solution>/<version>-<sha256>/` with the files of a bundle and, written last, their list beside it, and
`served/<solution>/<alias>.json`, the signed record of the bundle that an alias names. Servers follow the latter (`object_mirror.py`).
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.clients.bundle_record import BundleRecord, encode_served, folder_files, parse_served, write_served
from mlops_assets.clients.notices import publish_notice
from mlops_assets.core.object_storage import ObjectFolder
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import LAKE_DATABASE, Settings
from mlops_assets.schema.solution import Serving
from mlops_assets.serving.active import OPTIONS_FILE
from mlops_assets.serving.bundle import BundleError
from mlops_assets.serving.bundle_store import SolutionBundles, StoredBundle
from mlops_assets.serving.folder_store import FolderBundles
from mlops_assets.serving.object_mirror import BUNDLES, SERVED, fetch_bundle, stored_name

_LIST = re.compile(r"(\d+)-([0-9a-f]{64})\.json")
_KEEP = "SELECT pg_advisory_lock_shared(hashtextextended(%s, 0)) IS NOT NULL"
_REMOVE = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"


class ObjectBundles:
    """The bundles of one solution. A method waits for a store that is away.

    Who uses bundles and who removes them is settled by a lock in the database `catalog`, which all machines have. `notify` tells the servers
    that something changed.
    """

    def __init__(self, storage: ObjectFolder, solution: str, *, cache: FolderBundles, catalog: str, notify: Callable[[], None]):
        self._stored, self._served = (storage.below(part).below(solution) for part in (BUNDLES, SERVED))
        self._cache, self._catalog, self._notify = cache, catalog, notify
        self._lock = f"bundles of {solution} in {storage.url}"

    def put(self, bundle: StoredBundle, folder: Path) -> None:
        """Store the files, and then their list, by which the bundle is found."""
        name, files = stored_name(bundle), json.dumps(folder_files(folder)).encode()
        patiently(partial(self._stored.below(name).upload, folder))
        patiently(partial(self._stored.write, f"{name}.json", files))
        self._cache.put(bundle, folder)

    def get(self, bundle: StoredBundle) -> Path | None:
        """The folder of this machine, fetched where it is not here."""
        files = patiently(partial(self._stored.read, f"{stored_name(bundle)}.json"))
        if files is None:
            return None
        return patiently(partial(fetch_bundle, self._stored, bundle, json.loads(files), self._cache))

    def stored(self) -> Sequence[StoredBundle]:
        """The bundles with a list."""
        found = filter(None, map(_LIST.fullmatch, patiently(self._stored.objects)))
        return sorted((StoredBundle(int(match[1]), match[2]) for match in found), reverse=True)

    def remove(self, bundle: StoredBundle) -> bool:
        """Remove the list, and then the files."""
        with self._locked(_REMOVE) as is_locked:
            if not is_locked or any(self._record(alias).version == bundle.version for alias in self.aliases()):
                return False
            name = stored_name(bundle)
            patiently(partial(self._stored.remove, f"{name}.json"))
            files = self._stored.below(name)
            for file in patiently(files.objects):
                patiently(partial(files.remove, file))
        if self._cache.get(bundle):
            self._cache.remove(bundle)
        return True

    @contextmanager
    def using(self) -> Iterator[None]:
        """Hold the lock together with others, on all machines, and that of the folder of this one."""
        with self._locked(_KEEP), self._cache.using():
            yield

    def activate(self, alias: str, record: BundleRecord, signature: str) -> None:
        """Store the signed record under the name of the alias."""
        patiently(partial(self._served.write, f"{alias}.json", encode_served(record, signature)))
        self._notify()

    def deactivate(self, alias: str) -> None:
        """Remove it."""
        patiently(partial(self._served.remove, f"{alias}.json"))
        self._notify()

    def active(self, alias: str) -> Path | None:
        """The folder of this machine. Raises BundleError when the bundle is not stored, or is another one than the record says."""
        content = patiently(partial(self._served.read, f"{alias}.json"))
        if content is None:
            return None
        record, _ = parse_served(content)
        folder = self.get(StoredBundle(record.version, record.sha256))
        if folder is None:
            raise BundleError(
                f"{self._served.url}/{alias}.json names version {record.version}, which is not in {self._stored.url}."
            )
        write_served(folder, content)
        return folder

    def aliases(self) -> Collection[str]:
        """The names of the records."""
        names = patiently(self._served.objects)
        return sorted(name.removesuffix(".json") for name in names if name != OPTIONS_FILE)

    def read_options(self) -> Serving:
        """The content of the object. Raises pydantic.ValidationError when it is not valid."""
        content = patiently(partial(self._served.read, OPTIONS_FILE))
        return Serving() if content is None else Serving.model_validate_json(content)

    def write_options(self, options: Serving) -> None:
        """Write the object, unless it is so already."""
        content = options.model_dump_json().encode()
        if patiently(partial(self._served.read, OPTIONS_FILE)) != content:
            patiently(partial(self._served.write, OPTIONS_FILE, content))
            self._notify()

    def _record(self, alias: str) -> BundleRecord:
        content = patiently(partial(self._served.read, f"{alias}.json"))
        if content is None:
            raise BundleError(f"{self._served.url}/{alias}.json was removed meanwhile.")
        return parse_served(content)[0]

    @contextmanager
    def _locked(self, statement: str) -> Iterator[bool]:
        import psycopg2

        with closing(psycopg2.connect(self._catalog)) as connection:
            connection.autocommit = True  # an open transaction would keep Postgres from tidying up
            with connection.cursor() as cursor:
                cursor.execute(statement, [self._lock])
                [(is_locked,)] = cursor.fetchall()
                try:
                    yield bool(is_locked)
                finally:
                    # A closed connection has ended at the server only some time later.
                    cursor.execute("SELECT pg_advisory_unlock_all()")


class ObjectStore:
    """The bundles of all solutions in the storage of an installation."""

    def __init__(self, settings: Settings, storage: str, *, cache: Path):
        self._settings, self._storage, self._folder = settings, ObjectFolder(storage), cache

    def solutions(self) -> Sequence[str]:
        """The first parts of the names."""
        names = (*patiently(self._storage.below(BUNDLES).objects), *patiently(self._storage.below(SERVED).objects))
        return sorted({name.partition("/")[0] for name in names})

    def of(self, solution: str) -> SolutionBundles:
        """The bundles of `solution`, with a folder of this machine for those that were asked for."""
        settings = self._settings
        return ObjectBundles(
            self._storage,
            solution,
            cache=FolderBundles(self._folder / solution),
            catalog=settings.postgres_connection_string(LAKE_DATABASE),
            notify=lambda: publish_notice(event_stream_url(settings), settings.serving_directory),
        )
