"""Metadata of an asset that lead to the YAML it comes from, named as Dagster names them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.metadata.metadata_value import ObjectMetadataValue

COMPONENT = "dagster/component_origin"
_CODE = "dagster/code_references"


def origin_metadata(component: dg.Component, *, file: Path, line: int) -> dict[str, Any]:
    """The metadata of the assets of `component`, which begins at `line` of `file`."""
    place = dg.LocalFileCodeReference(file_path=str(file), line_number=line)
    return {_CODE: dg.CodeReferencesMetadataValue(code_references=[place]), COMPONENT: ObjectMetadataValue(component)}


def with_origin(metadata: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Any]:
    """`metadata` and `origin`, with the places of code of both."""
    merged = {**metadata, **origin}
    if _CODE in metadata and _CODE in origin:
        places = [*metadata[_CODE].code_references, *origin[_CODE].code_references]
        merged[_CODE] = dg.CodeReferencesMetadataValue(code_references=places)
    return merged
