"""The pieces of docs/extend.md as modules of a team."""

import re
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.core.project import current_project

PAGE = (current_project().root / "docs" / "extend.md").read_text()


def write_modules(folder: Path) -> None:
    """Write the package `my_team` of the page into `folder`."""
    for name, code in re.findall(r"```python\n# (my_team/\w+\.py)\n(.*?)```", PAGE, re.DOTALL):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).with_name("__init__.py").touch()
        (folder / name).write_text(code)


def documented(section: str) -> dict[str, Any]:
    """The YAML of a section of the page."""
    found = re.search(rf"^## {section}\n.*?```yaml\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    assert found
    return yaml.safe_load(found.group(1))
