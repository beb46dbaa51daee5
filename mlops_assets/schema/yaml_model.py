"""Base class and common field types of the YAML schemas."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from mlops_assets.schema.variables import fill_in

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]

_OWNER = re.compile(r"team:.+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
"""What Dagster takes for an owner."""


def _owner(text: str) -> str:
    if not _OWNER.fullmatch(text):
        raise ValueError(f"{text!r} is no owner; write team:{text.removeprefix('team:') or 'name'}, or an e-mail address")
    return text


Owner = Annotated[str, AfterValidator(_owner)]


class YamlModel(BaseModel):
    """A YAML mapping that admits only the fields it names. Values may name environment variables: see `fill_in`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _fill_in(cls, value: Any) -> Any:
        return fill_in(value)
