import os
from pathlib import Path

import pytest
from ports import free_ports

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local import postgres


def settings_with_pid_file(home: Path, text: str) -> Settings:
    settings = Settings(home=home)
    settings.postgres_directory.mkdir()
    (settings.postgres_directory / "postmaster.pid").write_text(text)
    return settings


@pytest.mark.parametrize(
    "text",
    ["", "not a number\n", "4194304\n/srv\n", f"{os.getpid()}\n/srv\n"],
    ids=["empty", "words", "no process", "this process"],
)
def test_a_stale_pid_file_is_removed_even_when_another_process_has_the_number(tmp_path: Path, text: str) -> None:
    settings = settings_with_pid_file(tmp_path, text)
    assert postgres.running_process(settings) is None
    postgres.remove_stale_pid_file(settings)
    assert not (settings.postgres_directory / "postmaster.pid").exists()


def test_a_half_created_data_folder_is_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.postgres_directory.mkdir()
    (settings.postgres_directory / "base").mkdir()
    with pytest.raises(StackError, match="not completely created") as raised:
        postgres.initialise_data_directory(settings)
    assert f"rm -r {settings.postgres_directory}" in raised.value.remedy


def test_the_program_of_the_wheel_is_there() -> None:
    assert os.access(postgres.executable(), os.X_OK)


def test_a_server_that_is_not_there_yet_may_be_waited_for(tmp_path: Path) -> None:
    [port] = free_ports(1)
    settings = Settings(home=tmp_path, postgres_url=f"postgresql://postgres@127.0.0.1:{port}/postgres")
    with pytest.raises(postgres.PostgresAwayError, match="Postgres cannot be reached"):
        postgres.create_databases(settings)
