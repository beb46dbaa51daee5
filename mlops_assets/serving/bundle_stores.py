"""The bundle stores of the platform, by the names that `MLOPS_BUNDLE_STORE` knows them by."""

from mlops_assets.serving.folder_store import folder
from mlops_assets.serving.object_store import object_storage

__all__ = ["folder", "object_storage"]
