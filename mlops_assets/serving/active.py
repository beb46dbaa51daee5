"""Links to the bundles that predict on this machine, and the options by which they share the requests.

The folder is `<serving directory>/<solution>`, with a bundle a version (`7/`) and its signed record (`7.json`), the link `champion`, one
such as `champion-north` for each segment with a champion of its own, the link `challenger` while one is tried, and `serving.json`. A
promotion moves a link in one step, and a process that serves follows it.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlops_assets.schema.solution import Serving


CHAMPION_LINK = "champion"
CHALLENGER_LINK = "challenger"
OPTIONS_FILE = "serving.json"


def champion_link(segment: str | None) -> str:
    """The link to the bundle that predicts the rows of `segment`; None: those of no segment with a champion of its own."""
    return CHAMPION_LINK if segment is None else f"{CHAMPION_LINK}-{segment}"


def segment_links(links: Collection[str]) -> list[str]:
    """Those of `links` that belong to segments with a champion of their own."""
    return sorted(link for link in links if link.startswith(champion_link("")))


def activate(bundle: Path, link: str) -> None:
    """Let the `link` beside `bundle` point to it. A reader sees the former target or this one, never neither."""
    scratch = bundle.parent / f".{link}.{os.getpid()}"
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(bundle.name)
    scratch.replace(bundle.parent / link)


def deactivate(folder: Path, link: str) -> None:
    """Remove the `link` of the solution's `folder`; nothing happens when there is none."""
    (folder / link).unlink(missing_ok=True)


def linked_bundle(folder: Path, link: str) -> Path | None:
    """The bundle behind the `link` of the solution's `folder`, or None when there is no such link."""
    path = folder / link
    return path.resolve() if path.is_symlink() else None


def write_options(folder: Path, options: "Serving") -> None:
    """Tell the servers the `serving` section of the solution whose `folder` this is. A reader sees the former text or this one."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{OPTIONS_FILE}.{os.getpid()}"
    scratch.write_text(options.model_dump_json())
    scratch.replace(folder / OPTIONS_FILE)


def read_options(folder: Path) -> "Serving":
    """Return the options that `write_options` wrote, or the defaults. Raises pydantic.ValidationError for any other content."""
    from mlops_assets.schema.solution import Serving

    path = folder / OPTIONS_FILE
    return Serving.model_validate_json(path.read_bytes()) if path.exists() else Serving()
