"""What the documentation names exists: files, make targets, commands, variables, links. And the YAML in it is valid."""

import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from mlops_assets.cli.main import app
from mlops_assets.components.dbt_models import DbtModelsAttributes
from mlops_assets.core.project import current_project
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import Source

PAGES = [
    current_project().root / "README.md",
    current_project().root / "CONTRIBUTING.md",
    current_project().root / "CHANGELOG.md",
    *sorted((current_project().root / "docs").rglob("*.md")),
]
NAMES = [str(page.relative_to(current_project().root)) for page in PAGES]
TEXTS = {name: page.read_text() for name, page in zip(NAMES, PAGES, strict=True)}

ROOTS = ("mlops_assets", "dbt_project", "deployments", "docs", "tests", ".ci", ".github")
ROOT_FILES = (
    ".env.example",
    "Makefile",
    "pyproject.toml",
    "requirements.lock",
    "workspace.yaml",
    "LICENSE",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
# What a reader is told to create.
EXAMPLE = ("deployments/deploy", "parcel", "depot_history", "delivered_at", "sent_date", "iris_species")
# Names that the code puts together.
JOBS = ("_training", "_scoring", "_monitoring")
# Of other software that is written about.
FOREIGN = ("sync_interval", "x_1")

COMPONENTS = {"RawTables": Source, "DbtModels": DbtModelsAttributes, "MLSolution": Solution}


def code_of(text: str) -> list[str]:
    """Inline code and the lines of code blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", prose)


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_every_path_that_is_named_exists(name: str) -> None:
    named = set()
    for code in code_of(TEXTS[name]):
        for word in re.split(r"[\s\"'(),;=:]+", code):
            if word in ROOT_FILES or (word.split("/")[0] in ROOTS and "/" in word):
                named.add(word.rstrip("."))
    chosen = {path for path in named if not any(word in path for word in (*EXAMPLE, "<", "X.py", "*"))}
    assert sorted(path for path in chosen if not (current_project().root / path).exists()) == []


@pytest.fixture(scope="module")
def identifiers() -> set[str]:
    """Every word of the repository's files, except documentation and locks, and the names of these files."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=current_project().root, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    words: set[str] = set()
    for name in listed:
        words |= set(re.findall(r"\w+", name))
        if not name.endswith((".md", ".png", ".lock")):
            words |= set(re.findall(r"\w+", (current_project().root / name).read_text(errors="ignore")))
    return words


@pytest.mark.parametrize("name", NAMES)
def test_every_tag_setting_and_function_that_is_named_exists(name: str, identifiers: set[str]) -> None:
    """Words with an underscore are names of the code: nobody writes them otherwise."""
    prose = re.sub(r"^```\w*\n.*?^```", "", TEXTS[name], flags=re.MULTILINE | re.DOTALL)
    named = {word for code in re.findall(r"`([^`\n]+)`", prose) for word in re.findall(r"\w+", code) if "_" in word.strip("_")}
    chosen = {word for word in named if not word.startswith(EXAMPLE) and not word.endswith(JOBS) and word not in FOREIGN}
    assert sorted(chosen - identifiers) == []


def test_the_tree_in_the_readme_exists() -> None:
    block = re.search(r"## Layout\n+```text\n(.*?)```", TEXTS["README.md"], flags=re.DOTALL)
    assert block is not None
    parent, paths = "", []
    for line in block.group(1).splitlines():
        path = line.split()[0]
        parent = parent if line.startswith(" ") else path
        paths.append(parent + path if line.startswith(" ") else path)
    assert len(paths) > 10
    assert [path for path in paths if not (current_project().root / path).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_make_target_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (current_project().root / "Makefile").read_text(), flags=re.MULTILINE))
    used = {found for code in code_of(TEXTS[name]) for found in re.findall(r"(?:^|\s)make ([a-z-]+)", code)}
    assert used <= targets


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_option_exists(name: str) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for code in code_of(TEXTS[name]):
        for command, rest in re.findall(r"(?:^|[\s/])mlops ([a-z]+)((?: [^&|;]*)?)", code):
            assert command in commands, code
            found = commands[command]
            if hasattr(found, "commands"):
                assert rest.split()[0] in found.commands, code
                found = found.commands[rest.split()[0]]
            known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
            assert set(re.findall(r"(?<=\s)--[a-z-]+", re.sub(r'"[^"]*"', "", rest))) <= known, code


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_exists(name: str) -> None:
    known = set(re.findall(r"MLOPS_[A-Z_]+", (current_project().root / ".env.example").read_text()))
    assert set(re.findall(r"MLOPS_[A-Z_]+", TEXTS[name])) <= known


def test_the_readme_names_every_variable_with_its_default() -> None:
    example = (current_project().root / ".env.example").read_text()
    for variable, value in re.findall(r"^# (MLOPS_[A-Z_]+)=(\S+)$", example, flags=re.MULTILINE):
        row = re.search(rf"^\| `{variable}` \| (.+?) \|", TEXTS["README.md"], flags=re.MULTILINE)
        assert row is not None, variable
        assert row.group(1).strip("`") == ("none" if variable.endswith(("_URL", "_TOKEN", "_KEY")) else value)


@pytest.mark.parametrize("name", NAMES)
def test_internal_links_resolve(name: str) -> None:
    broken = []
    prose = re.sub(r"^```.*?^```", "", TEXTS[name], flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        page = (current_project().root / name).parent / path if path else current_project().root / name
        if not page.exists() or (anchor and anchor not in anchors_of(page.read_text())):
            broken.append(target)
    assert broken == []


def test_the_import_layers_are_those_that_are_enforced() -> None:
    contract = tomllib.loads((current_project().root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    described = re.search(r"enforces it .*?\n\n(.*?)\n\n", TEXTS["CONTRIBUTING.md"], flags=re.DOTALL)
    assert described is not None
    assert " ".join(described.group(1).split()) == " > ".join(contract["layers"]).replace("mlops_assets.", "")


def test_pictures_are_small() -> None:
    pictures = list((current_project().root / "docs" / "images").glob("*.png"))
    assert [picture.name for picture in pictures if picture.stat().st_size > 300_000] == []


def test_the_yaml_reference_is_what_the_models_say() -> None:
    render = runpy.run_path(str(current_project().root / "docs" / "generate_reference.py"))["render"]
    assert render() == TEXTS["docs/reference-yaml.md"], "run: .venv/bin/python docs/generate_reference.py"


def test_the_yaml_of_the_example_is_valid() -> None:
    kinds = {}
    for page in ("docs/add-a-solution.md", "docs/write-dbt-models.md"):
        kinds[page] = []
        for first, block in re.findall(r"^```yaml\n(#[^\n]*\n)?(type: .*?)^```", TEXTS[page], flags=re.MULTILINE | re.DOTALL):
            assert first == "# yaml-language-server: $schema=../defs.schema.json\n", "an editor checks what is copied from here"
            content = yaml.safe_load(block)
            kinds[page].append(content["type"].rpartition(".")[2])
            COMPONENTS[kinds[page][-1]].model_validate(content["attributes"])
    # The second page goes on with the source and the solution of the first.
    assert kinds == {
        "docs/add-a-solution.md": ["RawTables", "MLSolution", "MLSolution"],
        "docs/write-dbt-models.md": ["DbtModels"],
    }


def test_a_solution_on_one_table_is_forty_lines_in_two_files() -> None:
    page = TEXTS["docs/add-a-solution.md"]
    files = re.findall(r"^`(\S+)`\n\n```yaml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert [path.rpartition("/")[2] for path, _ in files] == ["defs.yaml", "defs.yaml"]
    # The first line is a comment for the editor.
    lines = sum(len(text.splitlines()) - 1 for _, text in files)
    assert lines <= 40
    assert f"from {lines} lines of YAML in two files" in page


def test_every_check_is_described() -> None:
    rules = "".join(file.read_text() for file in (current_project().root / "mlops_assets").rglob("*.py"))
    declared = set(re.findall(r'CheckRule\(\s*name="(\w+)"', rules))
    assert len(declared) > 10
    assert sorted(rule for rule in declared if f"`{rule}`" not in TEXTS["docs/quality-checks.md"]) == []


def test_decision_records_are_numbered_and_complete() -> None:
    records = sorted(Path(name).name for name in NAMES if name.startswith("docs/adr/"))
    assert [int(record[:4]) for record in records] == list(range(len(records)))
    for record in records:
        text = TEXTS[f"docs/adr/{record}"]
        assert text.startswith(f"# {record[:4]} ")
        assert all(f"\n## {part}\n" in text for part in ("Context", "Decision", "Consequences"))


def test_the_version_has_an_entry_below_what_is_unreleased() -> None:
    root = current_project().root
    own = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\]", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", own]
