"""Files to which lines are only added: on a disk without room, and after a power failure."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlops_assets.core.line_files import append_line, read_lines

LINE = b"x" * 100


@contextmanager
def room(size: int) -> Iterator[None]:
    """Files may not become longer than `size` bytes: a write beyond that is cut, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("left", [0, 1, 50, 100])
def test_a_line_for_which_there_is_no_room_is_not_added(tmp_path: Path, left: int) -> None:
    path = tmp_path / "lines"
    append_line(path, LINE)
    with room(len(LINE) + 1 + left), pytest.raises(OSError):  # noqa: PT011  # its number is that of the system's limit
        append_line(path, LINE)
    assert path.read_bytes() == LINE + b"\n"
    append_line(path, b"after")
    assert read_lines(path) == [LINE, b"after"]


def test_a_line_that_was_cut_stays_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"whole\ncut")
    append_line(path, b"after")
    assert read_lines(path) == [b"whole", b"cut", b"after"]
