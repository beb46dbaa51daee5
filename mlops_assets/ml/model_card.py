"""The model card of one version, as HTML and as Markdown from the same content (Mitchell et al., "Model Cards for Model Reporting", 2019).

What a card is made of and how it is written. What this version's card says is put together by `training/model_card.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE_DIRECTORY = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """Rows of texts under a header. `numbers` are the positions of the columns to align right; `folded` hides it behind `title`."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int]
    folded: bool


@dataclass(frozen=True)
class Section:
    """One heading with, in this order, paragraphs, facts by name, points of a list, tables, commands, and figures (names)."""

    title: str
    paragraphs: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    points: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    commands: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelCard:
    """A card: title, whether the version was accepted, the sentence on top, links by text, sections, and PNG figures by name."""

    title: str
    accepted: bool
    headline: str
    facts: Mapping[str, str]
    links: Mapping[str, str]
    sections: tuple[Section, ...]
    figures: Mapping[str, bytes]


def render_html(card: ModelCard) -> str:
    """The card as one page that needs nothing else. Raises ValueError on a link that is no web address."""
    from mlops_assets.ml.figures import data_uri

    unsafe = [address for address in card.links.values() if not address.startswith(("http://", "https://"))]
    if unsafe:
        raise ValueError(f"Not an address to link to: {', '.join(unsafe)}.")
    images = {name: data_uri(png) for name, png in card.figures.items()}
    return _environment(escape=True).get_template("model_card.html.j2").render(card=card, images=images)


def render_markdown(card: ModelCard) -> str:
    """The card as Markdown, without the figures."""
    return _environment(escape=False).get_template("model_card.md.j2").render(card=card)


def markdown_text(text: str) -> str:
    """`text` in one line that no Markdown reader takes for markup, a table's border or HTML."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _environment(*, escape: bool) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_DIRECTORY),
        autoescape=escape,  # noqa: S701 - Markdown is escaped by the filter below
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = markdown_text
    return environment
