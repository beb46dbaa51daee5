"""The base class of the platform's components: what Dagster asks of a component, from one pydantic model of its attributes."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import dagster as dg
from pydantic import BaseModel


class YamlComponent(dg.Component):
    """A component whose constructor takes its attributes as one validated `model`."""

    model: ClassVar[type[BaseModel]]
    """The schema of the attributes."""

    @abstractmethod
    def __init__(self, attributes: Any):
        """Take the validated attributes."""

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of the attributes."""
        return cls.model

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Take the validated attributes as they are."""
        return cls(cls.model.model_validate(attributes))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions. Dagster adds to them where they come from."""
        return self.definitions(Path(context.path), origin={})

    @abstractmethod
    def definitions(self, folder: Path, *, origin: Mapping[str, Any]) -> dg.Definitions:
        """The definitions of a component whose YAML file is in `folder`, with the metadata `origin` at every asset.

        Raises ConfigurationError as `check` does.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigurationError with all that is wrong in the attributes and that their schema does not tell."""
