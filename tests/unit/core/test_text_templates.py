from pathlib import Path

import jinja2
import pytest

from mlops_assets.core.text_templates import text_templates


def test_text_is_not_escaped_and_blocks_leave_no_lines(tmp_path: Path) -> None:
    (tmp_path / "a.j2").write_text("first\n  {% if name %}\nname={{ name }}\n  {% endif %}\nlast\n")
    assert text_templates(tmp_path).get_template("a.j2").render(name="<a & b>") == "first\nname=<a & b>\nlast\n"


def test_a_variable_that_nobody_gave_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.j2").write_text("{{ nmae }}")
    with pytest.raises(jinja2.UndefinedError, match="nmae"):
        text_templates(tmp_path).get_template("a.j2").render(name="x")
