"""The protocol of a source reader, and the registry of readers. Imports nothing heavy: YAML files are validated with it.

The readers of the platform are in `mlops_assets/sources/readers.py`. Those of a team are named by import path or are entry points of the
group `mlops_assets.readers`.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from mlops_assets.schema.registry import Registry

Reads = Literal["files", "query"]


@runtime_checkable
class SourceReader(Protocol):
    """What makes rows of a file (`format:` of a table) or of a query (`query.database:`).

    A reader tells rows apart and hands them over as they are, in their exact types or as text. The platform casts them, checks them and
    counts them. `options` are the names of those that it takes. A file is on this machine and unpacked, unless the reader `reads_urls`;
    that of one that `is_text` is UTF-8.
    """

    options: Collection[str]
    reads: Reads
    is_text: bool
    reads_urls: bool

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raise ValueError for an option that has no effect, or whose value is none; `name` is that of the reader in YAML."""
        ...

    def extract(self, part: Any) -> Any:
        """The rows of a `mlops_assets.sources.extract.SourcePart` as an `Extract`."""
        ...


READERS = Registry("source reader", group="mlops_assets.readers", builtin="mlops_assets.sources.readers", protocol=SourceReader)  # type: ignore[type-abstract]


def find_reader(name: str, reads: Reads) -> SourceReader:
    """The reader `name`. Raises ValueError when there is none, or it reads something else than `reads`."""
    reader = READERS.get(name)
    if reader.reads != reads:
        place = "as `query.database`" if reader.reads == "query" else "as `format` of `files`"
        raise ValueError(f"{name!r} reads {'a query' if reader.reads == 'query' else 'files'}: name it {place}")
    return reader


def file_readers() -> list[str]:
    """The names of the built-in and the installed readers of files."""
    return [name for name in READERS.names() if READERS.get(name).reads == "files"]
