"""Environment variables in YAML values: `{{ env.NAME }}` and `{{ env('NAME', 'default') }}`, as in Dagster's own components."""

import os
import re
from typing import Any

_REFERENCE = re.compile(
    r"\{\{\s*env(?:\.(?P<name>\w+)|\(\s*['\"](?P<called>\w+)['\"]\s*(?:,\s*['\"](?P<default>[^'\"]*)['\"]\s*)?\))\s*\}\}"
)


def fill_in(value: Any) -> Any:
    """`value` with the variables that its texts name filled in; those of a list or a mapping too.

    Raises ValueError with the remedy when a variable is not set and has no default.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(_text, value) if "{{" in value else value
    if isinstance(value, list):
        return [fill_in(item) if isinstance(item, str) else item for item in value]
    if isinstance(value, dict):
        return {key: fill_in(item) if isinstance(item, str) else item for key, item in value.items()}
    return value


def _text(reference: re.Match[str]) -> str:
    name = reference["name"] or reference["called"]
    text = os.environ.get(name, reference["default"])
    if text is None:
        raise ValueError(f"the environment variable {name} is not set; set it, or write {{{{ env('{name}', 'default') }}}}")
    return text
