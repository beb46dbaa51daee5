"""The description of a backup: one point of an installation, with every file by its SHA-256."""

from importlib.metadata import version

import msgspec
from packaging.version import Version

from mlops_assets.clients.stream_snapshots import StreamSnapshot
from mlops_assets.core.errors import StackError
from mlops_assets.local.version_log import PRODUCT

FORMAT = 2
"""The newest layout of a backup. A change that an earlier release cannot read gets the next number: 2 is encrypted,
or names files that are elsewhere."""

UNENCRYPTED_FORMAT = 1
"""That of a point without either, which earlier releases can read."""

STATE, DATABASES, STREAMS = "state", "databases", "streams"
"""The first part of a file's path: where it goes. Files of the state folder, dumps, snapshots of streams."""


class StoredFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A file: the SHA-256 of its content, its size, and when it was last changed (Unix time in nanoseconds).

    `encrypted` is the SHA-256 of what is stored where that is not the content itself.
    """

    sha256: str
    size: int
    modified: int
    encrypted: str | None = None

    @property
    def stored(self) -> str:
        """The SHA-256 of what is stored, which is its name."""
        return self.encrypted or self.sha256


class StoredTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a table of the lake: its rows, and the fingerprint of them."""

    rows: int
    fingerprint: str


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One point of an installation.

    `name` is the moment (UTC) of the databases. `files` and `links` (with their targets) go by paths such as `state/lake/...`. `snapshot`
    is that of the lake, whose `tables` are described too. `home` is where the state folder was. `versions` are those of the packages that wrote
    the state, which can open it after a restore. The files are encrypted to the `recipients`; without any they are not. Those of the lake are
    not copied where they are in object storage, `storage`.
    """

    format: int
    name: str
    home: str
    versions: dict[str, str]
    snapshot: int
    tables: dict[str, StoredTable]
    streams: dict[str, StreamSnapshot]
    files: dict[str, StoredFile]
    links: dict[str, str]
    recipients: list[str] = []
    storage: str | None = None

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files.values())

    def part(self, name: str) -> dict[str, StoredFile]:
        """The files of `STATE`, `DATABASES` or `STREAMS` by their paths in it."""
        return {path.removeprefix(f"{name}/"): file for path, file in self.files.items() if path.startswith(f"{name}/")}


def check_readable(form: int, versions: dict[str, str]) -> None:
    """Raise StackError when a newer release than this one wrote the state in the backup."""
    here, there = version(PRODUCT), versions[PRODUCT]
    if form > FORMAT or Version(there) > Version(here):
        raise StackError(
            f"The state in the backup was written by {PRODUCT} {there}, which is newer than this one, {here}.",
            remedy=f"Install that version: uv pip install '{PRODUCT}=={there}'",
        )
