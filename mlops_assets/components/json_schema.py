"""The JSON Schema of a `defs.yaml`, by which editors complete fields, show their meaning and mark mistakes.

`defs.schema.json` beside this file is what `component_schema` returns, written by `docs/generate_reference.py`. `mlops prepare` copies it
into the `defs/` folder of a project, where the files name it: `# yaml-language-server: $schema=../defs.schema.json`.
"""

from typing import Any

from pydantic.json_schema import models_json_schema

from mlops_assets.components.dbt_models import DbtModels
from mlops_assets.components.ml_solution import MLSolution
from mlops_assets.components.raw_tables import RawTables

_COMPONENTS: tuple[Any, ...] = (RawTables, DbtModels, MLSolution)


def component_schema() -> dict[str, Any]:
    """The schema of a file that names one of the platform's components by either name; those of others are not looked into."""
    models = [component.get_model_cls() for component in _COMPONENTS]
    references, definitions = models_json_schema([(model, "validation") for model in models], ref_template="#/$defs/{model}")
    names = {component: _names(component) for component in _COMPONENTS}
    known = [name for of_component in names.values() for name in of_component]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Definitions of a source, dbt models or a solution",
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"description": "Name of the component.", "anyOf": [{"enum": known}, {"type": "string"}]},
            "attributes": {"type": "object"},
        },
        "allOf": [
            {
                "if": {"properties": {"type": {"enum": names[component]}}},
                "then": {"required": ["attributes"], "properties": {"attributes": references[model, "validation"]}},
            }
            for component, model in zip(_COMPONENTS, models, strict=True)
        ],
        "$defs": definitions["$defs"],
    }


def _names(component: Any) -> list[str]:
    """The short name, and the import path."""
    return [f"mlops_assets.{component.__name__}", f"{component.__module__}.{component.__name__}"]
