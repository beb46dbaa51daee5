"""The bundle stores of the platform, by the names that `MLOPS_BUNDLE_STORE` knows them by. One that is not used is not imported."""

from mlops_assets.core.settings import Settings
from mlops_assets.serving.bundle_store import BundleStore
from mlops_assets.serving.folder_store import folder

__all__ = ["folder", "object_storage"]


class ObjectStoreKind:
    """The store below `MLOPS_STORAGE`."""

    def open(self, settings: Settings) -> BundleStore:
        """The store for stages."""
        from mlops_assets.serving.object_store import ObjectStore

        return ObjectStore(settings, _storage(settings), cache=settings.serving_directory)

    def follow(self, settings: Settings) -> BundleStore:
        """The store for servers."""
        from mlops_assets.clients.signatures import Signer
        from mlops_assets.core.object_storage import ObjectFolder
        from mlops_assets.serving.object_mirror import BundleMirror

        signer = Signer(settings.signing_key_file)
        return BundleMirror(ObjectFolder(_storage(settings)), settings.serving_directory, signer, settings.kept_bundles)


def _storage(settings: Settings) -> str:
    if settings.storage is None:
        raise ValueError("the bundle store object_storage needs MLOPS_STORAGE=s3://bucket/prefix.")
    return settings.storage


object_storage = ObjectStoreKind()
