"""The history of a state: which versions it is of, and upgrades that did not end."""

from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local.state_steps import STEPS
from mlops_assets.local.version_log import (
    BEGAN,
    FORM,
    UPGRADED,
    WRITTEN,
    BackupPlace,
    installed_versions,
    last_writer,
    read_history,
    record,
    unfinished_upgrade,
    version_log,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_a_state_is_of_the_versions_that_opened_it_last_until_an_upgrade_has_ended(settings: Settings) -> None:
    assert last_writer(settings) is None
    record(settings, WRITTEN, 0, changes=[])
    first = BackupPlace("/backups", "1")
    for place in (first, None):
        record(settings, BEGAN, 0, backup=place, changes=["lake: 0.4 -> 1.0"])
        writer, unfinished = last_writer(settings), unfinished_upgrade(settings)
        assert writer is not None
        assert unfinished is not None
        assert (writer.event, unfinished.backup) == (WRITTEN, first)
    record(settings, UPGRADED, FORM, backup=first, changes=["lake: 0.4 -> 1.0"])
    writer = last_writer(settings)
    assert writer is not None
    assert (writer.form, writer.versions, unfinished_upgrade(settings)) == (len(STEPS), installed_versions(), None)


def test_a_line_that_a_power_failure_cut_counts_for_nothing(settings: Settings) -> None:
    record(settings, WRITTEN, FORM, changes=[])
    whole = version_log(settings).read_bytes()
    version_log(settings).write_bytes(whole + whole[:40])
    record(settings, WRITTEN, FORM, changes=[])
    assert len(read_history(settings)) == 2


def test_a_line_of_something_else_is_named(settings: Settings) -> None:
    version_log(settings).write_text('{"at": "yesterday"}\n')
    with pytest.raises(StackError, match=r"Line 1 of .*versions.jsonl is none of the platform's"):
        read_history(settings)
