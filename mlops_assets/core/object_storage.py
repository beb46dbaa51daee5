"""Object storage with the interface of S3: how a store is reached, and the objects below an address.

DuckDB, MLflow and Arrow have each a client of their own. All take the credentials as AWS's tools do, from the environment, a profile or the
role of the machine, and the rest from the variables that are read here. No credential passes through this module.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlops_assets.core.errors import AwayError, StackError

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

STYLE_VARIABLE = "AWS_S3_ADDRESSING_STYLE"
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
_STYLES = ("path", "virtual")

_ADDRESS = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.()-]+)*")
_ATTEMPTS = 1
"""Whoever asks decides for how long to ask again, and says so."""
_CONNECT_SECONDS, _REQUEST_SECONDS = 2.0, 20.0
_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET|HTTP status 40[13]|HTTP status 301"
)


class StorageError(StackError):
    """The object store refuses what was asked; the message names what to change."""


class StorageAwayError(AwayError, OSError):
    """The object store does not answer."""


@dataclass(frozen=True)
class StoreAccess:
    """The way to a store: its `endpoint` (None: AWS), its region, and whether the bucket is in the path or in the name of the host."""

    endpoint: str | None
    region: str | None
    style: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "StoreAccess":
        """Read the variables of AWS's tools. Raises ValueError that names the one with an impossible value."""
        endpoint = _first(environment, _ENDPOINT_VARIABLES)
        if endpoint:
            address = urlsplit(endpoint)
            if address.scheme not in ("http", "https") or not address.netloc or address.path.strip("/"):
                raise ValueError(
                    f"the endpoint {endpoint!r} is not http://host:port or https://host:port; correct {_ENDPOINT_VARIABLES[0]}."
                )
        style = environment.get(STYLE_VARIABLE) or ("path" if endpoint else "virtual")
        if style not in _STYLES:
            raise ValueError(f"{STYLE_VARIABLE}={style!r} is neither path nor virtual.")
        return cls(endpoint, _first(environment, _REGION_VARIABLES), style)

    @property
    def name(self) -> str:
        """The store as messages name it."""
        return f"The object store at {self.endpoint}" if self.endpoint else "S3"


def read_storage(environment: Mapping[str, str]) -> str | None:
    """The address that `MLOPS_STORAGE` holds, without a slash at its end. Raises ValueError for any other text."""
    text = environment.get("MLOPS_STORAGE", "").rstrip("/")
    if text and not _ADDRESS.fullmatch(text):
        raise ValueError(
            f"MLOPS_STORAGE={text!r} is not s3://bucket or s3://bucket/prefix. Another store is reached by its interface of S3: name it in "
            f"{_ENDPOINT_VARIABLES[0]} (Google Cloud Storage: https://storage.googleapis.com, with HMAC keys)."
        )
    return text or None


@dataclass(frozen=True)
class StoredObject:
    """Size and time of writing of an object; a store gives the time in whole seconds."""

    size: int
    modified: int


class ObjectFolder:
    """The objects below `url`, `s3://bucket/prefix`. A write is seen whole or not at all.

    Every method raises StorageAwayError when the store does not answer, and StorageError when it refuses. The client is made when it is first
    needed and once per process: it does not survive a fork.
    """

    def __init__(self, url: str):
        self.url = url
        self._path = url.removeprefix("s3://")
        self._client: tuple[int, S3FileSystem] | None = None
        self._name = "The object store"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectFolder) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[type["ObjectFolder"], tuple[str]]:
        """Send the address alone to another process, which has a client and credentials of its own."""
        return ObjectFolder, (self.url,)

    def below(self, name: str) -> "ObjectFolder":
        """The folder `name` in this one."""
        return ObjectFolder(f"{self.url}/{name}")

    def check(self) -> None:
        """Ask the store for nothing, so as to know whether it answers."""
        with self._explained():
            self._store.get_file_info(f"{self._path}/")

    def objects(self) -> dict[str, StoredObject]:
        """Every object at any depth, by its name below the folder."""
        from pyarrow.fs import FileSelector, FileType

        with self._explained():
            entries = self._store.get_file_info(FileSelector(self._path, recursive=True, allow_not_found=True))
        return {
            entry.path.removeprefix(f"{self._path}/"): StoredObject(entry.size, entry.mtime_ns // 10**9)
            for entry in entries
            if entry.type == FileType.File
        }

    def read(self, name: str) -> bytes | None:
        """The content of an object; None when there is none."""
        with self._explained():
            try:
                with self._store.open_input_file(f"{self._path}/{name}") as file:
                    content: bytes = file.read()
                    return content
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Store `content` in place of what is there."""
        with self._explained(), self._store.open_output_stream(f"{self._path}/{name}") as file:
            file.write(content)

    def remove(self, name: str) -> None:
        """Remove an object; nothing happens when there is none."""
        with self._explained():
            try:
                self._store.delete_file(f"{self._path}/{name}")
            except FileNotFoundError:
                return

    def upload(self, folder: Path) -> None:
        """Store every file of the local `folder`."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.write(file.relative_to(folder).as_posix(), file.read_bytes())

    def download(self, folder: Path) -> None:
        """Write every object into the local `folder`, which may be there."""
        for name in self.objects():
            content = self.read(name)
            if content is not None:  # else it was removed meanwhile
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)

    @property
    def _store(self) -> "S3FileSystem":
        if self._client is None or self._client[0] != os.getpid():
            access = StoreAccess.from_environment(os.environ)
            self._client, self._name = (os.getpid(), _connect(access)), access.name
        return self._client[1]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except ValueError as error:
            raise StorageError(f"{self.url}: {error}", remedy="Correct the variable.") from error
        except OSError as error:
            text = str(error).partition("\n")[0]
            if _REFUSED.search(text):
                raise StorageError(
                    f"{self._name} refuses {self.url}: {text}",
                    remedy="Create the bucket, or give AWS_ACCESS_KEY_ID (or the role of this machine) the right to read and write it.",
                ) from error
            raise StorageAwayError(f"{self._name} does not answer ({text}).") from error


def _connect(access: StoreAccess) -> "S3FileSystem":
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    create = partial(
        S3FileSystem,
        region=access.region,
        force_virtual_addressing=access.style == "virtual",
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )
    if access.endpoint is None:
        return create()
    address = urlsplit(access.endpoint)
    return create(endpoint_override=address.netloc, scheme=address.scheme)


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := environment.get(name))), None)
