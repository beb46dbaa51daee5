"""Base class and common field types of the YAML schemas."""

import re
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
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
    def _fill_in(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would take `true` for 1.
        if isinstance(value, bool) and not _takes_booleans(cls.model_fields[info.field_name or ""].annotation):
            raise PydanticCustomError("boolean", "{given} is no value of this field", {"given": str(value).lower()})
        return fill_in(value)


def _takes_booleans(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return any(map(_takes_booleans, get_args(annotation)))
    if get_origin(annotation) is Literal:
        return any(isinstance(value, bool) for value in get_args(annotation))
    return annotation in (bool, Any, object)
