"""What is written to the folders that the platform answers for is put on the disk at once, or it is said which are not."""

import fcntl
import os
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mlops_assets.core.settings import DURABILITIES, Settings
from mlops_assets.local.durability import make_durable

GET_ATTRIBUTES, SYNCHRONOUS = 0x80086601, 0x8


def is_synchronous(path: Path) -> bool:
    file = os.open(path, os.O_RDONLY)
    try:
        return bool(struct.unpack("l", fcntl.ioctl(file, GET_ATTRIBUTES, struct.pack("l", 0)))[0] & SYNCHRONOUS)
    except OSError:
        return False
    finally:
        os.close(file)


@pytest.mark.parametrize("durability", DURABILITIES)
def test_new_files_of_new_and_former_folders_are_written_through_or_it_is_said(tmp_path: Path, durability: str) -> None:
    settings = Settings(home=tmp_path, durability=durability)
    former = settings.lake_directory / "raw" / "flights"
    former.mkdir(parents=True)
    buffered = make_durable(settings)
    for folder in (former, settings.lake_directory / "new", settings.mlflow_artifact_directory / "1", settings.serving_directory):
        folder.mkdir(exist_ok=True)
        (folder / "file").write_text("row")
        named = any(folder.is_relative_to(each) for each in buffered)
        assert is_synchronous(folder / "file") == (durability == "fsync" and not named)


def test_who_is_content_with_buffers_gets_them_back(tmp_path: Path) -> None:
    make_durable(Settings(home=tmp_path))
    settings = Settings(home=tmp_path, durability="buffered")
    assert make_durable(settings) == []
    (settings.lake_directory / "file").write_text("row")
    assert not is_synchronous(settings.lake_directory / "file")


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_file_system_without_the_attribute_is_named(durability: str) -> None:
    with TemporaryDirectory(dir="/dev/shm") as home:
        settings = Settings(home=Path(home), durability=durability)
        assert (settings.lake_directory in make_durable(settings)) == (durability == "fsync")
