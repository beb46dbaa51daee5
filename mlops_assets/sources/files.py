"""Files of a source on this machine: where they are, which of them a run may name, and what is packed in them, verified to its end.

What stands in the files belongs to the readers.
"""

import bz2
import gzip
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import duckdb

from mlops_assets.lake.sql import literal
from mlops_assets.sources.extract import SourceError
from mlops_assets.sources.object_storage import SCHEMES, open_object_storage

COMPRESSIONS = {"gzip": ".gz", "zstd": ".zst", "none": "", "auto": None}
"""Values of the option `compression`, with the ending that such files have."""

_CHUNK = 1 << 20
_LARGEST_UNPACKED = 32 << 30
_FREE_OF_RATIO = 64 << 20
_LARGEST_RATIO = 200
"""Real tables are packed 5 to 50 times; a file that grows more is made to fill the disk. Small files may."""
_LARGEST_DOWNLOAD = 1 << 30
_PACKAGE = "package:"


def _zstd(path: Path) -> IO[bytes]:
    import pyarrow

    return pyarrow.CompressedInputStream(str(path), "zstd")


_OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd}


def local_file(
    connection: duckdb.DuckDBPyConnection, label: str, *, directory: Path, folder: Path, compression: str | None, in_place: bool
) -> str:
    """The path of the unpacked file that `label` of a YAML source names. What has to be written is written to `folder`.

    With `in_place` a URL is returned as it is. Raises SourceError for a file that is not there, or is not whole.
    """
    if "://" in label:
        connection.execute("LOAD httpfs")
        if label.startswith(SCHEMES):
            open_object_storage(connection, label)
        if in_place:
            return label
        path = download(connection, label, folder)
    else:
        path = source_path(label, directory)
        if not path.is_file():
            raise SourceError(f"{label}: there is no file {path}.")
    return str(_unpacked(path, label, folder, compression))


def require_allowed_files(files: Sequence[str], *, own: Sequence[str], directory: Path, deliveries: Path) -> None:
    """Raise SourceError when one of `files`, which a run names, is not for a run to read.

    A run may name files below `directory` (the folder of the YAML file) or `deliveries`, files of the packages that the YAML file names,
    and URLs below the folders of those in the YAML file (`own`).
    """
    packages = {_package(label) for label in own if label.startswith(_PACKAGE)}
    prefixes = [_url_folder(label) for label in own if "://" in label]
    for label in files:
        if label.startswith(_PACKAGE):
            allowed = _package(label) in packages
        elif "://" in label:
            allowed = any(_is_below(label, prefix) for prefix in prefixes)
        else:
            path = (directory / label).resolve()
            allowed = any(path.is_relative_to(folder.resolve()) for folder in (directory, deliveries))
        if not allowed:
            raise SourceError(
                f"{label}: a run may read files below the folder of the table's YAML file, files of the packages and URLs below the "
                "folders that the YAML file names. Put the file there, or name it in the YAML file."
            )


def source_path(label: str, directory: Path) -> Path:
    """The path of a file that a YAML source names; `directory` is that of the YAML file. Raises SourceError for a package that is none."""
    if not label.startswith(_PACKAGE):
        return directory / label
    package = _package(label)
    specification = find_spec(package) if package.isidentifier() else None
    # A folder without code is no package, though Python takes it for one.
    if specification is None or not specification.submodule_search_locations or specification.origin is None:
        raise SourceError(f"{label}: the package {package} is not installed.")
    root = Path(specification.submodule_search_locations[0])
    path = root / label.removeprefix(_PACKAGE).partition("/")[2]
    if not path.resolve().is_relative_to(root.resolve()):
        raise SourceError(f"{label}: the file is not inside the package {package}.")
    return path


def _package(label: str) -> str:
    return label.removeprefix(_PACKAGE).partition("/")[0]


def _url_folder(url: str) -> str:
    return url.split("?")[0].rpartition("/")[0] + "/"


def _is_below(url: str, prefix: str) -> bool:
    requested, allowed = urlsplit(url), urlsplit(prefix)
    if (requested.scheme, requested.netloc) != (allowed.scheme, allowed.netloc):
        return False
    # A server may take `%2e%2e` and a backslash for what they stand for.
    parts = unquote(unquote(requested.path)).replace("\\", "/").split("/")
    return requested.path.startswith(allowed.path) and ".." not in parts


def download(connection: duckdb.DuckDBPyConnection, url: str, folder: Path) -> Path:
    """The file at `url`, written to `folder`. Raises SourceError for one that is too large."""
    [(size,)] = connection.execute(f"SELECT size FROM read_blob({literal(url)})").fetchall()
    if size > _LARGEST_DOWNLOAD:
        raise SourceError(
            f"{url}: the file has {size:,} bytes, at most {_LARGEST_DOWNLOAD:,} are read from a URL. Deliver Parquet."
        )
    [(content,)] = connection.execute(f"SELECT content FROM read_blob({literal(url)})").fetchall()
    path = folder / f"download{PurePosixPath(urlsplit(url).path).suffix}"
    path.write_bytes(content)
    return path


def _unpacked(path: Path, label: str, folder: Path, compression: str | None) -> Path:
    """`path`, or the file that is packed in it, in as many layers as its name states."""
    stated = None if compression is None else COMPRESSIONS[compression]
    name, layer = path.name, 0
    while True:
        ending = Path(name).suffix.lower() if stated is None or layer else stated
        if ending != ".zip" and ending not in _OPENERS:
            return path
        target, layer = folder / f"unpacked_{layer}", layer + 1
        try:
            if ending == ".zip":
                name = _unpack_zip(path, label, target)
            else:
                with _OPENERS[ending](path) as packed:
                    _copy(packed, target, label, packed_size=path.stat().st_size)
                name = Path(name).stem if Path(name).suffix.lower() == ending else name
        except (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError, NotImplementedError) as error:
            # With a number it is an error of this machine, such as a full disk, and none of the packed file.
            if getattr(error, "errno", None) is not None:
                raise
            problem = f"{label}: the packed file is damaged, cut off, encrypted or not what its name says. Deliver it again."
        else:
            path = target
            continue
        raise SourceError(problem)


def _unpack_zip(path: Path, label: str, target: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir() and not _is_of_the_system(member.filename)]
        if len(members) != 1:
            raise SourceError(f"{label}: expected one file in the archive, there are {len(members)}.")
        with archive.open(members[0]) as packed:
            _copy(packed, target, label, packed_size=members[0].compress_size)
        return PurePosixPath(members[0].filename).name


def _is_of_the_system(name: str) -> bool:
    """Whether a Mac put the file into an archive beside those that were meant."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or parts[-1] in (".DS_Store", "Thumbs.db") or parts[-1].startswith("._")


def _copy(packed: Any, target: Path, label: str, *, packed_size: int) -> None:
    """Write all that is packed to `target`; reading to the end is what verifies the check sums."""
    size = 0
    with target.open("wb") as file:
        while chunk := packed.read(_CHUNK):
            size += len(chunk)
            suspicious = size > _FREE_OF_RATIO and size > _LARGEST_RATIO * packed_size
            if suspicious or size > _LARGEST_UNPACKED or shutil.disk_usage(target.parent).free < _FREE_OF_RATIO:
                raise SourceError(
                    f"{label}: unpacking stopped at {size:,} bytes ({size // max(packed_size, 1)} times the packed file). At most "
                    f"{_LARGEST_UNPACKED:,} bytes and {_LARGEST_RATIO} times are unpacked, and the disk keeps some room. Deliver it unpacked."
                )
            file.write(chunk)
