"""Folders that appear complete or not at all."""

import threading
from pathlib import Path

import pytest

from mlops_assets.training.kept_folders import copy_of, keep_folder


def write(scratch: Path, content: str) -> Path:
    folder = scratch / "made"
    folder.mkdir()
    (folder / "file").write_text(content)
    (folder / "second").write_text(content)
    return folder


def test_a_folder_takes_the_place_of_the_one_before_and_leaves_no_scratch(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    for content in ("first", "second"):
        keep_folder(target, lambda scratch, content=content: write(scratch, content))  # type: ignore[misc]
        assert {path.name: path.read_text() for path in target.iterdir()} == {"file": content, "second": content}
    assert [path.name for path in target.parent.iterdir()] == ["b"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "b"
    keep_folder(target, lambda scratch: write(scratch, "before"))

    def fail(scratch: Path) -> Path:
        write(scratch, "half")
        raise OSError("the registry is away")

    with pytest.raises(OSError, match="the registry is away"):
        keep_folder(target, fail)
    assert (target / "file").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_writers_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    target, problems = tmp_path / "b", []
    barrier = threading.Barrier(6)

    def keep(number: int) -> None:
        barrier.wait()
        try:
            keep_folder(target, lambda scratch: write(scratch, str(number)))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len({path.read_text() for path in target.iterdir()}) == 1


def test_a_copy_is_a_folder_of_its_own(tmp_path: Path) -> None:
    source = write(tmp_path, "x")
    keep_folder(tmp_path / "kept", copy_of(source))
    (source / "file").write_text("changed")
    assert (tmp_path / "kept" / "file").read_text() == "x"
