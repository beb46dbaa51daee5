"""`mlops schema`: what is no pair is refused before anything is started."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mlops_assets.cli.main import app
from mlops_assets.cli.schema import _pairs


@pytest.mark.parametrize("command", ["plan", "apply"])
@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("--rename", "amount", "--rename name=new"),
        ("--type", "=BIGINT", "--type name=TYPE"),
        ("--rename", "a=", "--rename name=new"),
    ],
)
def test_what_is_no_pair_is_refused_without_a_stack(command: str, option: str, value: str, remedy: str, home: Path) -> None:
    result = CliRunner().invoke(app, ["schema", command, "raw.orders", option, value])
    assert (result.exit_code, result.stderr.splitlines()) == (1, [f"{option} {value}: this is no pair.", f"Write {remedy}"])
    assert not home.exists()


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: "=" not in name), st.text(min_size=1)))
def test_pairs_keep_every_name_and_type_as_written(pairs: dict[str, str]) -> None:
    assert _pairs("--type", [f"{name}={kind}" for name, kind in pairs.items()]) == pairs
