"""Which bundles stay in the store: what predicts or may have to, what a server has, and the newest ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from server_reports import report

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.serving.bundle_store import StoredBundle, open_bundle_store
from mlops_assets.training.kept_bundles import prune_bundles


class Aliases(ModelRegistry):
    """A registry of which only the aliases are asked for."""

    def aliases(self, solution: str) -> dict[str, int]:
        return {"champion": 2, "champion-north": 3, "previous": 4, "challenger": 5, "favourite": 6}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A store with the versions 1 to 12 of `example`."""
    settings = Settings(home=tmp_path, kept_bundles=2)
    bundles = open_bundle_store(settings).of("example")
    for version in range(1, 13):
        folder = tmp_path / f"made_{version}"
        folder.mkdir()
        (folder / "model.onnx").write_text(str(version))
        bundles.put(StoredBundle(version, str(version) * 8), folder)
    return settings


@contextmanager
def step() -> Iterator[None]:
    with dg.build_op_context():
        yield


def test_what_nobody_needs_goes_and_all_else_stays(settings: Settings) -> None:
    report(settings, 7, segments={"south": 8})
    references = settings.references_directory / "example"
    for version in range(1, 13):
        (references / str(version)).mkdir(parents=True)
        (references / str(version) / "rows.parquet").touch()
    registry = Aliases("", "", Signer(settings.home / "key"))
    with step():
        assert sorted(prune_bundles(registry, settings, "example")) == [1, 6, 9, 10]
        left = [bundle.version for bundle in open_bundle_store(settings).of("example").stored()]
        assert sorted(left) == [2, 3, 4, 5, 7, 8, 11, 12]
        assert sorted(int(folder.name) for folder in references.iterdir()) == sorted(left)
        assert prune_bundles(registry, settings, "example") == []
        assert prune_bundles(registry, settings, "another") == []
