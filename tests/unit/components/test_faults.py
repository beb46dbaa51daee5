"""Faults as a person reads them: file, line, field, what is wrong; and faults of dbt models in the file that describes them."""

from pathlib import Path

import pytest

from mlops_assets.components.faults import Fault, explain, model_fault, require_single_keys
from mlops_assets.components.yaml_file import YamlFile
from mlops_assets.core.project import current_project
from mlops_assets.feature_store.model_problems import FeatureViewError, ModelProblem
from mlops_assets.schema.configuration_errors import ConfigurationError, ErrorCollector


def folder_of(tmp_path: Path, text: str | bytes) -> Path:
    folder = tmp_path / "parcels"
    folder.mkdir()
    (folder / "defs.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_a_fault_of_the_project_has_a_path_that_begins_there() -> None:
    path = current_project().definitions_directory / "parcels" / "defs.yaml"
    fault = Fault(path, 7, "training.holdout", "is wrong; shorten it")
    assert str(fault) == "mlops_assets/defs/parcels/defs.yaml:7: training.holdout: is wrong; shorten it"


def test_several_errors_are_several_faults_in_the_order_of_the_file(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "type: x\nattributes:\n  name: a\n  gates:\n    floor: {f1: 1}\n")
    errors = ErrorCollector()
    errors.add(("gates", "floor", "f1"), "is no metric")
    errors.add(("name",), "is taken")
    with pytest.raises(ConfigurationError) as caught:
        errors.raise_errors()
    assert [(fault.line, fault.field) for fault in explain(caught.value, folder)] == [(3, "name"), (5, "gates.floor.f1")]


def test_a_key_given_twice_is_a_fault(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "type: x\nattributes:\n  name: a\n  name: b\n")
    with pytest.raises(ConfigurationError) as caught:
        require_single_keys(YamlFile(folder / "defs.yaml"))
    [fault] = explain(caught.value, folder)
    assert (fault.line, fault.field, fault.message) == (4, "name", "is given twice; keep one")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"type: x\nattributes:\n  name: [a, b\n  owners: []\n", 3, "while parsing a flow sequence"),
        (b"type: x\n attributes:\n", 2, "mapping values are not allowed"),
        (b"type: \xff\xfe\n", None, "is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, text: bytes, line: int | None, message: str) -> None:
    folder = folder_of(tmp_path, text)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        require_single_keys(YamlFile(folder / "defs.yaml"))
    [fault] = explain(caught.value, folder)
    assert fault.line == line
    assert message in fault.message


def test_a_fault_of_a_feature_view_is_in_the_file_that_describes_its_model(tmp_path: Path) -> None:
    problem = ModelProblem("models/features/census/person.yml", "person", ("meta", "feature_view", "entity"), "is required")
    fault = model_fault(problem)
    text = fault.file.read_text().splitlines()
    assert "entity:" in text[(fault.line or 0) - 1]
    assert explain(FeatureViewError(problem), tmp_path) == [fault]
    assert model_fault(ModelProblem("models/nothing.sql", "nothing", (), "is wrong")).line is None
