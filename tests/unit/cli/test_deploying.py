from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mlops_assets.cli.main import app


def test_manifests_are_printed_for_the_image_and_the_namespace(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTGRES", "NATS", "MLFLOW"):
        monkeypatch.setenv(f"MLOPS_{name}_URL", f"{name.lower()}://host")
    result = CliRunner().invoke(app, ["manifests", "--image", "registry.example.org/parcels:1.4.2", "--namespace", "parcels"])
    assert result.exit_code == 0, result.stderr
    objects = [each for each in yaml.safe_load_all(result.stdout) if each]
    assert {each["metadata"]["namespace"] for each in objects} == {"parcels"}
    assert "registry.example.org/parcels:1.4.2" in result.stdout
