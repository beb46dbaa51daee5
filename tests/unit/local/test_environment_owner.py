from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local.environment_owner import check_folder, claim_folder


def test_a_state_folder_is_of_the_environment_that_began_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "state"))
    settings = Settings.from_environment()
    settings.home.mkdir()
    monkeypatch.setenv("MLOPS_ENV", "prod")
    claim_folder(settings)
    claim_folder(settings)
    # As when .env names the folder of prod for every environment.
    monkeypatch.setenv("MLOPS_ENV", "staging")
    with pytest.raises(StackError, match="is of the environment prod, and this process is of staging"):
        claim_folder(settings)
    assert [(path.name, path.read_text()) for path in settings.home.iterdir()] == [("environment", "prod\n")]


def test_a_folder_that_cannot_be_read_is_a_message(tmp_path: Path) -> None:
    # For root everything can be read, but a folder is no file.
    (tmp_path / "environment").mkdir()
    with pytest.raises(StackError, match=r"The state folder .* cannot be read: Is a directory\."):
        check_folder(Settings(home=tmp_path))
