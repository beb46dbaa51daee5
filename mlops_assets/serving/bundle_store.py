"""The protocol of a bundle store, which holds the bundles of the solutions and the links to those that predict, and the store in use.

Those of the platform are a folder of this machine (`folder_store.py`) and object storage (`object_store.py`). A team's own is named
by `MLOPS_BUNDLE_STORE`, by import path or as an entry point of the group `mlops_assets.bundle_stores`.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mlops_assets.clients.bundle_record import BundleRecord
from mlops_assets.core.settings import Settings
from mlops_assets.schema.registry import Registry

if TYPE_CHECKING:
    from mlops_assets.schema.solution import Serving


@dataclass(frozen=True, order=True)
class StoredBundle:
    """The identity of a stored bundle: its version, and the SHA-256 over names and contents of its files (`BundleRecord.sha256`)."""

    version: int
    sha256: str


class SolutionBundles(Protocol):
    """The bundles of one solution. An alias, such as `champion`, says which of them predicts.

    What a method changes, others see whole or not at all. Nothing is verified here: whoever loads a bundle compares it with its signed
    record, and a process that serves goes on with the bundle that it has when another cannot be had.
    """

    def put(self, bundle: StoredBundle, folder: Path) -> None:
        """Store the files of `folder`, in place of what is stored under this identity."""
        ...

    def get(self, bundle: StoredBundle) -> Path | None:
        """A folder `<solution>/<version>` of this machine with the files of the bundle, None when it is not stored.

        A store that is elsewhere keeps them here once they were asked for.
        """
        ...

    def stored(self) -> Sequence[StoredBundle]:
        """All bundles, the newest version first."""
        ...

    def remove(self, bundle: StoredBundle) -> bool:
        """Remove a bundle. Returns False, and leaves it, when an alias names it or somebody is `using` the solution's bundles."""
        ...

    def using(self) -> AbstractContextManager[None]:
        """A block in which no bundle of the solution is removed."""
        ...

    def activate(self, alias: str, record: BundleRecord, signature: str) -> None:
        """Let `alias` name the stored bundle of the accepted version `record`, and lay its signed record beside it. One step for who reads."""
        ...

    def deactivate(self, alias: str) -> None:
        """Let `alias` name nothing; it may do so already."""
        ...

    def active(self, alias: str) -> Path | None:
        """The folder of the bundle that `alias` names, as `get` gives it, with the signed record in `<version>.json` beside it.

        Asked twice a second: what did not change costs next to nothing.
        """
        ...

    def aliases(self) -> Collection[str]:
        """The aliases that name a bundle."""
        ...

    def read_options(self) -> "Serving":
        """The `serving` section that was written last, or the defaults."""
        ...

    def write_options(self, options: "Serving") -> None:
        """Tell the servers the `serving` section of the solution."""
        ...


class BundleStore(Protocol):
    """The bundles of all solutions."""

    def solutions(self) -> Sequence[str]:
        """The solutions that have bundles."""
        ...

    def of(self, solution: str) -> SolutionBundles:
        """The bundles of `solution`, of which there may be none."""
        ...


@runtime_checkable
class BundleStoreKind(Protocol):
    """A class that opens a store with the settings of an installation."""

    def open(self, settings: Settings) -> BundleStore:
        """The store. Nothing is fetched before it is asked for."""
        ...


@runtime_checkable
class FollowedStoreKind(BundleStoreKind, Protocol):
    """A class whose stores servers open in another way than the stages that write them."""

    def follow(self, settings: Settings) -> BundleStore:
        """The store for servers: what was served goes on while it is away."""
        ...


@runtime_checkable
class FollowedBundles(Protocol):
    """Bundles of a solution that are kept like those elsewhere."""

    def problems(self) -> Sequence[str]:
        """Why something elsewhere is not followed."""
        ...


BUNDLE_STORES = Registry(
    "bundle store",
    group="mlops_assets.bundle_stores",
    builtin="mlops_assets.serving.bundle_stores",
    protocol=BundleStoreKind,  # type: ignore[type-abstract]
)


def open_bundle_store(settings: Settings) -> BundleStore:
    """The store that `MLOPS_BUNDLE_STORE` names. Raises ValueError, with the nearest names, when there is none."""
    try:
        return BUNDLE_STORES.get(settings.bundle_store).open(settings)
    except ValueError as error:
        raise ValueError(f"MLOPS_BUNDLE_STORE: {error}") from error


def open_followed_store(settings: Settings) -> BundleStore:
    """The same store for a server. Raises ValueError as `open_bundle_store` does."""
    try:
        kind = BUNDLE_STORES.get(settings.bundle_store)
        return kind.follow(settings) if isinstance(kind, FollowedStoreKind) else kind.open(settings)
    except ValueError as error:
        raise ValueError(f"MLOPS_BUNDLE_STORE: {error}") from error


def prune(bundles: SolutionBundles, *, needed: Collection[int], keep: int) -> list[int]:
    """Remove all bundles but those of the versions `needed`, of an alias, and the newest `keep`. Returns the versions that are gone.

    One that is in use stays until the next time.
    """
    outdated = [bundle for bundle in bundles.stored()[keep:] if bundle.version not in needed]
    return [bundle.version for bundle in outdated if bundles.remove(bundle)]
