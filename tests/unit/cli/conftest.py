"""What the tests of commands share: an installation that does not exist yet, and a terminal that remembers."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from mlops_assets.operations.deployments import Deployment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder that nothing has made yet."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def terminal() -> Console:
    """A terminal of 160 columns whose text can be exported."""
    return Console(width=160, record=True, emoji=False, quiet=False)


@pytest.fixture
def deployment() -> Deployment:
    """A deployment whose words are markup to Rich."""
    return Deployment(
        version=3,
        segment=None,
        since=datetime(2024, 1, 1, 12, tzinfo=UTC),
        until=None,
        training_date="2024-01-01",
        version_before=2,
        actor="an[na]",
        approved_by=None,
        reason="[urgent] complaints [/b]",
        gates="passed",
        recalibration=None,
        copied_from=None,
        run_id="0123456789",
        run_url="http://localhost/runs/0123456789",
    )
