"""Templates of text files: configuration, YAML, the files of a new project."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def text_templates(directory: Path) -> "jinja2.Environment":
    """The templates of text files in `directory`: a variable that nobody gave is an error, and blocks leave no empty lines."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(directory),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - text files, not HTML
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
