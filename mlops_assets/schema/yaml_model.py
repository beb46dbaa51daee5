"""Base class and common field types of the YAML schemas."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class YamlModel(BaseModel):
    """A YAML mapping that admits only the fields it names."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
