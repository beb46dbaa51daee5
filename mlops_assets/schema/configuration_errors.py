"""Configuration errors: the fault in a YAML file, its place, and the remedy. Also the look-up of import paths.

Classes are looked up in their source, which is parsed and not imported: importing an ML library would slow down every start of the
code location.
"""

import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from mlops_assets.schema.remembering import remembered


class ConfigurationError(Exception):
    """A YAML file says something that cannot be: `path` are the keys below `attributes`, `message` what is wrong and what is allowed."""

    def __init__(self, path: tuple[str | int, ...], message: str):
        super().__init__(f"{'.'.join(map(str, path))}: {message}")
        self.path = path
        self.message = message

    @property
    def errors(self) -> "tuple[ConfigurationError, ...]":
        """The faults, each by itself."""
        return (self,)


class CollectedConfigurationError(ConfigurationError):
    """Several faults of one file; path and message are those of the first."""

    def __init__(self, errors: Sequence[ConfigurationError]):
        super().__init__(errors[0].path, errors[0].message)
        self.args = ("\n".join(map(str, errors)),)
        self._errors = tuple(errors)

    @property
    def errors(self) -> tuple[ConfigurationError, ...]:
        """The faults, each by itself."""
        return self._errors


class ErrorCollector:
    """Configuration errors of checks that follow each other, so that all of them are reported and not only the first."""

    def __init__(self) -> None:
        self._errors: list[ConfigurationError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the error of the check inside the block."""
        try:
            yield
        except ConfigurationError as error:
            self._errors += error.errors

    def add(self, path: tuple[str | int, ...], message: str) -> None:
        """Keep an error."""
        self._errors.append(ConfigurationError(path, message))

    @property
    def is_empty(self) -> bool:
        """Whether no check failed."""
        return not self._errors

    def raise_errors(self) -> None:
        """Raise what was collected as one error, if there is any."""
        unique = list({(error.path, error.message): error for error in self._errors}.values())
        if len(unique) == 1:
            raise unique[0]
        if unique:
            raise CollectedConfigurationError(unique)


def nearest(name: str, allowed: list[str], *, quoted: bool = False) -> str:
    """A hint for a wrong name: the nearest allowed ones, or all of them."""
    if not allowed:
        return "there is none"
    close = get_close_matches(name, allowed, n=3, cutoff=0.5)
    written = repr if quoted else str
    return (
        f"did you mean {' or '.join(map(written, close))}?" if close else f"allowed: {', '.join(map(written, sorted(allowed)))}"
    )


def nearest_name(name: str, allowed: list[str]) -> str | None:
    """The allowed name that `name` is most probably meant to be; None when it is like none of them."""
    return next(iter(get_close_matches(name, allowed, n=1, cutoff=0.5)), None)


def check_import_path(import_path: str, path: tuple[str | int, ...]) -> None:
    """Raise ConfigurationError when the class `import_path` does not exist."""
    *packages, name = import_path.split(".")
    if not all((*packages, name)) or not packages:
        raise ConfigurationError(path, f"{import_path!r} is no import path; write package.module.Class")
    source = _package_source(packages[0])
    if source is None:
        raise ConfigurationError(path, f"the package {packages[0]!r} is not installed, or is not written in Python")
    for depth, package in enumerate(packages[1:], start=1):
        inner = _inner_source(source, package)
        if inner is None:
            parent = ".".join(packages[:depth])
            public = [module for module in _inner_modules(source) if not module.startswith("_")]
            raise ConfigurationError(path, f"there is no module {package!r} in {parent}; {nearest(package, public)}")
        source = inner
    names = _public_names(source)
    if name not in names:
        raise ConfigurationError(path, f"{'.'.join(packages)} has no {name!r}; {nearest(name, names)}")


def imported_names(module: str, package: str) -> frozenset[str] | None:
    """The names that the source of `module` imports from `package`; None when there is no such source."""
    source = _module_source(module)
    if source is None:
        return None
    return _imported_names(source, package)


@lru_cache(maxsize=64)
def _imported_names(source: Path, package: str) -> frozenset[str]:
    imports = (node for node in ast.walk(_parse(source)) if isinstance(node, ast.ImportFrom))
    return frozenset(alias.name for node in imports if (node.module or "").split(".")[0] == package for alias in node.names)


def method_parameters(import_path: str, method: str) -> list[str] | None:
    """Names of the parameters of `method` of the class `import_path`, its own or the inherited one, without `self`.

    None when they cannot be told from the source: the method takes any keyword, or its class is not plain Python.
    """
    module, _, name = import_path.rpartition(".")
    return _method_parameters(module, name, method)


def _method_parameters(module: str, name: str, method: str) -> list[str] | None:
    found = _class_definition(module, name)
    if found is None:
        return None
    home, definition = found
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == method:
            arguments = node.args
            if arguments.kwarg is not None:
                return None
            return [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if each.arg != "self"]
    inherited = (_method_parameters(home, base.id, method) for base in definition.bases if isinstance(base, ast.Name))
    return next((parameters for parameters in inherited if parameters is not None), None)


@lru_cache(maxsize=256)
def base_classes(import_path: str) -> frozenset[str]:
    """Names of the classes that the class `import_path` inherits from, as far as their source tells."""
    module, _, name = import_path.rpartition(".")
    definition = _class_definition(module, name)
    if definition is None:
        return frozenset()
    home, node = definition
    names = {
        base.id if isinstance(base, ast.Name) else base.attr for base in node.bases if isinstance(base, ast.Name | ast.Attribute)
    }
    return frozenset(names).union(*(base_classes(f"{home}.{base}") for base in names - {name}))


def _class_definition(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """The class `name` as `module` knows it, with the module that defines it."""
    source = _module_source(module)
    node = _naming_node(source, name) if source else None
    if source is None or node is None:
        return None
    if isinstance(node, ast.ClassDef):
        return module, node
    original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
    return _class_definition(_absolute(module, source, node), original)


@lru_cache(maxsize=256)
def _naming_node(source: Path, name: str) -> ast.ClassDef | ast.ImportFrom | None:
    """The statement by which a module has the class `name`: its definition, or its import."""
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return node
    return None


def _absolute(module: str, source: Path, node: ast.ImportFrom) -> str:
    """The module that a `from ... import` in `module` names."""
    if not node.level:
        return str(node.module)
    parts = module.split(".")
    package = parts if source.name == "__init__.py" else parts[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def _module_source(module: str) -> Path | None:
    first, *packages = module.split(".")
    source = _package_source(first)
    for package in packages:
        source = _inner_source(source, package) if source else None
    return source


@remembered
def _package_source(package: str) -> Path | None:
    """The file of a package or a module in Python. One that is built into Python or compiled has none."""
    try:
        specification = find_spec(package)
    except ValueError:  # of a module that was not imported, such as __main__
        return None
    origin = specification.origin if specification else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _inner_source(source: Path, module: str) -> Path | None:
    """The file of a module inside the package whose `__init__.py` is `source`."""
    if source.name != "__init__.py":
        return None
    candidates = (source.parent / module / "__init__.py", source.parent / f"{module}.py")
    return next((path for path in candidates if path.is_file()), None)


def _inner_modules(source: Path) -> Iterator[str]:
    if source.name == "__init__.py":
        yield from (entry.stem for entry in source.parent.glob("*.py"))
        yield from (entry.parent.name for entry in source.parent.glob("*/__init__.py"))


@lru_cache(maxsize=64)
def _public_names(source: Path) -> list[str]:
    """Names that a module defines or imports at its top level."""
    names: set[str] = set()
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
    return sorted(name for name in names if name[0].isupper())


@lru_cache(maxsize=64)
def _parse(source: Path) -> ast.Module:
    return ast.parse(source.read_text())
