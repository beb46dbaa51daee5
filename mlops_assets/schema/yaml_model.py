"""Base class and common field types of the YAML schemas."""

import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

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
        _refuse_booleans(value, cls.model_fields[info.field_name or ""].annotation)
        return fill_in(value)


def _refuse_booleans(value: Any, annotation: Any) -> None:
    """Refuse `true` where a number is asked for, also within lists and mappings: pydantic would take it for 1."""
    members = list(_members(annotation))
    if isinstance(value, bool):
        if (int in members or float in members) and bool not in members and Any not in members:
            raise PydanticCustomError("number", "a number is asked for, not {given}", {"given": str(value).lower()})
        return
    for member in members:
        if isinstance(value, dict) and get_origin(member) is dict:
            for item in value.values():
                _refuse_booleans(item, get_args(member)[1])
        elif isinstance(value, list) and get_origin(member) is list:
            for item in value:
                _refuse_booleans(item, get_args(member)[0])


def _members(annotation: Any) -> Iterator[Any]:
    """The types that `annotation` unites, or itself."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation
