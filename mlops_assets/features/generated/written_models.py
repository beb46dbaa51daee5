"""What the hand-written YAML files of a dbt project already have: names of models, sources, entities of feature views."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.schema.yaml_loader import read_yaml


@dataclass(frozen=True)
class WrittenModels:
    """Name -> file of each model that somebody wrote, the (source, table) pairs that dbt knows, and feature view -> entity keys."""

    models: Mapping[str, Path]
    sources: frozenset[tuple[str, str]]
    entities: Mapping[str, tuple[str, ...]]


def read_written_models(folder: Path) -> WrittenModels:
    """The models below `folder`, read without dbt; read again when a file changes. Files that are no YAML are dbt's to report."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".sql", ".yml", ".yaml"))
    return _read(tuple((path, path.stat().st_mtime_ns) for path in paths))


@lru_cache(maxsize=4)
def _read(files: tuple[tuple[Path, int], ...]) -> WrittenModels:
    documents = [document for path, _ in files if path.suffix != ".sql" for document in _documents(path)]
    return WrittenModels(
        models={path.stem: path for path, _ in files if path.suffix == ".sql"},
        sources=frozenset(
            (str(source.get("name")), str(table.get("name")))
            for document in documents
            for source in _entries(document, "sources")
            for table in _entries(source, "tables")
        ),
        entities={
            str(model.get("name")): tuple(map(str, view["entity"]))
            for document in documents
            for model in _entries(document, "models")
            if isinstance(view := _meta(model).get("feature_view"), dict) and isinstance(view.get("entity"), list)
        },
    )


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    try:
        document = read_yaml(path.read_text())
    except yaml.YAMLError:
        return
    if isinstance(document, dict):
        yield document


def _entries(document: Mapping[str, Any], key: str) -> Iterator[dict[str, Any]]:
    entries = document.get(key)
    yield from (entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


def _meta(model: Mapping[str, Any]) -> Mapping[str, Any]:
    config = model.get("config")
    meta = (config.get("meta") if isinstance(config, dict) else None) or model.get("meta")
    return meta if isinstance(meta, dict) else {}
