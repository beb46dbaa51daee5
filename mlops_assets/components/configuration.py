"""Configuration errors: what is wrong in a YAML file, where, and what would be right."""

import ast
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path


class ConfigurationError(Exception):
    """A YAML file says something that cannot be: `path` are the keys below `attributes`, `message` what is wrong and what is allowed."""

    def __init__(self, path: tuple[str | int, ...], message: str):
        super().__init__(f"{'.'.join(map(str, path))}: {message}")
        self.path = path
        self.message = message


def nearest(name: str, allowed: list[str]) -> str:
    """A hint for a wrong name: the nearest allowed ones, or all of them."""
    close = get_close_matches(name, allowed, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"allowed: {', '.join(sorted(allowed))}"


def check_import_path(import_path: str, path: tuple[str | int, ...]) -> None:
    """Raise ConfigurationError when the class `import_path` does not exist.

    The source is parsed, not imported: importing an ML library would slow down every start of the code location.
    """
    *packages, name = import_path.split(".")
    if not all((*packages, name)) or not packages:
        raise ConfigurationError(path, f"{import_path!r} is no import path; write package.module.Class")
    specification = find_spec(packages[0])
    if specification is None or specification.origin is None:
        raise ConfigurationError(path, f"the package {packages[0]!r} is not installed")
    source = Path(specification.origin)
    for depth, package in enumerate(packages[1:], start=1):
        folder = source.parent
        modules = {entry.stem for entry in folder.glob("*.py")} | {entry.parent.name for entry in folder.glob("*/__init__.py")}
        if source.name != "__init__.py" or package not in modules:
            parent = ".".join(packages[:depth])
            public = [module for module in modules if not module.startswith("_")] if source.name == "__init__.py" else []
            raise ConfigurationError(path, f"there is no module {package!r} in {parent}; {nearest(package, public)}")
        source = folder / package / "__init__.py"
        if not source.is_file():
            source = folder / f"{package}.py"
    names = _public_names(source)
    if name not in names:
        raise ConfigurationError(path, f"{'.'.join(packages)} has no {name!r}; {nearest(name, names)}")


def _public_names(source: Path) -> list[str]:
    """Names that a module defines or imports at its top level."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
    return sorted(name for name in names if name[0].isupper())
