"""Addresses of object storage and of stores, and what of them is refused. On a real store: `test_lake_in_object_storage.py`."""

from pathlib import Path

import pytest

from mlops_assets.core.object_storage import ObjectFolder, StoreAccess, read_storage
from mlops_assets.core.settings import Settings


@pytest.mark.parametrize(
    "address", ["gs://bucket", "az://bucket/x", "s3://", "s3://UPPER", "s3://bucket//x", "s3://bucket/a'b", "/srv"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"MLOPS_STORAGE=.* is not s3://bucket or s3://bucket/prefix"):
        read_storage({"MLOPS_STORAGE": address})


def test_every_part_of_the_state_is_below_the_address_or_in_the_folder() -> None:
    settings = Settings(home=Path("/srv"), storage=read_storage({"MLOPS_STORAGE": "s3://bucket/prefix/"}))
    assert (settings.lake_location, settings.mlflow_artifact_location) == ("s3://bucket/prefix/lake", "s3://bucket/prefix/mlflow")
    environment = {"MLOPS_HOME": "/srv", "MLOPS_STORAGE": "s3://bucket/prefix"}
    assert Settings.from_environment(environment).bundle_store == "object_storage"
    assert Settings.from_environment(environment | {"MLOPS_BUNDLE_STORE": "folder"}).bundle_store == "folder"
    settings = Settings(home=Path("/srv"))
    assert (settings.lake_location, settings.mlflow_artifact_location) == ("/srv/lake", "file:///srv/mlflow/artifacts")


def test_a_store_by_the_variables_of_other_tools() -> None:
    assert StoreAccess.from_environment({}) == StoreAccess(None, None, "virtual")
    variables = {"AWS_ENDPOINT_URL": "https://store:9000", "AWS_DEFAULT_REGION": "x"}
    assert StoreAccess.from_environment(variables) == StoreAccess("https://store:9000", "x", "path")
    assert StoreAccess.from_environment(variables | {"AWS_S3_ADDRESSING_STYLE": "virtual"}).style == "virtual"


def test_the_same_place_is_equal() -> None:
    assert ObjectFolder("s3://bucket/a").below("b") == ObjectFolder("s3://bucket/a/b")
    assert len({ObjectFolder("s3://bucket/a"), ObjectFolder("s3://bucket/a")}) == 1
