from dataclasses import replace
from html.parser import HTMLParser

import pytest

from mlops_assets.ml.model_card import ModelCard, Section, Table, markdown_text, render_html, render_markdown

HOSTILE = "<script>alert('x')</script> a|b `c` [d](javascript:e)\n# heading"
CARD = ModelCard(
    title="parcels version 3",
    accepted=True,
    headline="roc_auc 0.71 on 560 rows.",
    facts={"features": "5"},
    links={"Version in MLflow": "http://127.0.0.1:5000/#/models/parcels/versions/3"},
    sections=(
        Section(
            title="Limits",
            paragraphs=("Why.",),
            facts={"label": HOSTILE},
            points=(HOSTILE,),
            tables=(
                Table("Gates", ("gate", "value"), (("floor", "0.7"), (HOSTILE, "1")), frozenset({1}), folded=False),
                Table("Long", ("feature",), (("depot",),), frozenset(), folded=True),
            ),
            commands=('mlops rollback parcels --reason "..."',),
            figures=("ranking",),
        ),
    ),
    figures={"ranking": b"png"},
)


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_page_holds_everything_and_runs_nothing() -> None:
    page = render_html(CARD)
    found = Tags(page)
    assert "script" not in found.tags
    assert found.texts.count(HOSTILE) == 3
    for text in ("parcels version 3", "Accepted.", "Limits", "Why.", "floor", 'mlops rollback parcels --reason "..."'):
        assert text in found.texts, text
    assert 'src="data:image/png;base64,cG5n"' in page
    assert found.tags.count("details") == 1
    assert "default-src 'none'" in page


def test_markdown_holds_the_same_but_the_figures() -> None:
    text = render_markdown(CARD)
    lines = text.splitlines()
    assert lines[0] == "# parcels version 3"
    assert "**Accepted.** roc\\_auc 0.71 on 560 rows." in lines
    assert "| floor | 0.7 |" in lines
    assert 'mlops rollback parcels --reason "..."' in lines
    header = lines.index("| gate | value |")
    assert lines[header + 1] == "|---|---:|"
    # Whatever a text holds, a table keeps its columns and the page its structure.
    escaped = "\\<script\\>alert('x')\\</script\\> a\\|b \\`c\\` \\[d\\](javascript:e) \\# heading"
    assert f"| {escaped} | 1 |" in lines
    assert f"- {escaped}" in lines
    assert markdown_text("snake_case *x*") == "snake\\_case \\*x\\*"


def test_a_rejected_version_says_so() -> None:
    rejected = replace(CARD, accepted=False)
    assert "**Rejected.**" in render_markdown(rejected)
    assert 'class="headline rejected"' in render_html(rejected)


def test_only_web_addresses_are_linked() -> None:
    with pytest.raises(ValueError, match="Not an address to link to: javascript:alert"):
        render_html(replace(CARD, links={"x": "javascript:alert(1)"}))
