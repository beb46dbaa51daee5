"""Base class and common field types of the YAML schemas."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from mlops_assets.schema.variables import fill_in

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]

_OWNER = re.compile(r"team:.+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
"""What Dagster takes for an owner."""


def _owner(text: str) -> str:
    if not _OWNER.fullmatch(text):
        meant = f"team:{text.removeprefix('team:') or 'name'}"
        raise PydanticCustomError(
            "owner", "{given} is no owner; write {meant}, or an e-mail address", {"given": repr(text), "meant": meant}
        )
    return text


Owner = Annotated[str, AfterValidator(_owner)]
Owners = Annotated[list[Owner], Field(min_length=1)]


class YamlModel(BaseModel):
    """A YAML mapping that admits only the fields it names. Values may name environment variables: see `fill_in`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _fill_in(cls, value: Any) -> Any:
        return fill_in(value)
