"""Registries: where a piece is found, and what is said of one that is not."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import pytest

from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.registry import Registry

GROUP = "registry_test.greetings"
_MODULES = {
    "registry_builtin": "from registry_kind import Greeting\nhello = Greeting('hello')\n_hidden = Greeting('hidden')\nnumber = 1\n",
    "registry_kind": (
        "class Greeting:\n    def __init__(self, text): self.text = text\n    def __call__(self): return self.text\n"
        "class Mute:\n    text = 'mute'\n"
    ),
    "registry_team": (
        "from registry_kind import Greeting, Mute\nservus = Greeting('servus')\nhello = Greeting('theirs')\nmute = Mute()\n"
        "kind = Greeting\n"
    ),
    "registry_broken": "raise OSError('no licence')\n",
}
_POINTS = f"[{GROUP}]\ninstalled = registry_team:servus\nhello = registry_team:hello\ngone = registry_nowhere:x\n"


@runtime_checkable
class Greeting(Protocol):
    text: str

    def __call__(self) -> str: ...


@pytest.fixture(autouse=True)
def installed(tmp_path: Path) -> Iterator[None]:
    """A package with entry points, installed as pip installs one."""
    for name, code in _MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    information = tmp_path / "registry_team-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: registry-team\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(_POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        yield
    for name in _MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def registry() -> Registry[Greeting]:
    return Registry("greeting", group=GROUP, builtin="registry_builtin", protocol=Greeting)


def refusal(registry: Registry[Greeting], name: str) -> str:
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        registry.get(name)
    return str(caught.value)


def test_names_are_the_built_in_and_the_installed_ones_without_importing_these(registry: Registry[Greeting]) -> None:
    assert "registry_builtin" not in sys.modules
    assert registry.names() == ("hello", "installed", "gone")
    assert "registry_team" not in sys.modules


def test_a_piece_is_found_by_each_of_its_names_and_is_one_object(registry: Registry[Greeting]) -> None:
    assert registry.get("hello")() == "hello"
    assert registry.get("installed")() == "servus"
    assert registry.get("registry_team:hello")() == "theirs"
    assert registry.get("registry_team:servus") is registry.get("installed")
    assert [registry.is_own(name) for name in ("hello", "installed", "registry_builtin:hello")] == [True, False, False]


def test_an_installed_piece_does_not_take_the_name_of_a_built_in_one(registry: Registry[Greeting]) -> None:
    assert registry.get("hello").text == "hello"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("helo", "Unknown greeting 'helo': did you mean hello?"),
        ("_hidden", "Unknown greeting '_hidden'"),
        ("number", "Unknown greeting 'number'"),
        ("registry_team:servos", "registry_team has no 'servos'; did you mean servus?"),
        ("registry_team:", "registry_team has no ''"),
        ("registry_team:mute", "is no greeting: it lacks __call__."),
        ("registry_team:kind", "is no greeting: it lacks"),
        ("registry_broken:x", "cannot be imported: OSError: no licence"),
        ("registry_nowhere:x", "cannot be imported: ModuleNotFoundError"),
        (":", "cannot be imported"),
        ("..:x", "cannot be imported"),
        ("gone", f"(registry_nowhere:x, an entry point of {GROUP}) cannot be imported"),
    ],
)
def test_what_is_no_piece_is_refused_with_the_reason(registry: Registry[Greeting], name: str, words: str) -> None:
    assert words in refusal(registry, name)


def test_a_name_of_a_yaml_file_is_refused_at_its_place(registry: Registry[Greeting]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        registry.check("helo", ("greetings", 0))
    assert (caught.value.path, caught.value.message) == (("greetings", 0), refusal(registry, "helo"))
    assert registry.check("hello", ()) is registry.get("hello")
