from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from http_servers import running

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local.environment_owner import check_folder, claim_folder, claim_stores


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


class OtherToken(BaseHTTPRequestHandler):
    """The door of an MLflow that knows another token."""

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        return


def test_an_mlflow_that_knows_another_token_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    with running(ThreadingHTTPServer(("127.0.0.1", 0), OtherToken)) as server:
        settings = Settings(home=tmp_path, mlflow_server=f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(StackError, match=r"status 401 at .*: it refuses the token of this environment") as refused:
            claim_stores(settings)
    assert refused.value.remedy.startswith("Correct MLOPS_MLFLOW_URL, or have that server know the token in")
