"""The wheel, installed in an environment of its own: a project outside this repository, with the solution of docs/add-a-solution.md."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from running_stack import new_home

from mlops_assets.core.project import current_project

pytestmark = pytest.mark.long

DOCS = current_project().root / "docs"
PAGE, MODELS_PAGE = ((DOCS / name).read_text() for name in ("add-a-solution.md", "write-dbt-models.md"))

Mlops = Callable[..., "subprocess.CompletedProcess[str]"]

# What the graph of the page has, loaded as Dagster loads it, and what a start of the stack would write.
LOAD = """
import json
import dagster as dg
import mlops_assets
from my_company.definitions import defs
from mlops_assets.core.settings import Settings
from mlops_assets.local.configuration import render_files

definitions = defs()
dg.Definitions.validate_loadable(definitions)
print(json.dumps({
    "package": mlops_assets.__file__,
    "assets": [spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()],
    "jobs": [job.name for job in definitions.resolve_all_job_defs()],
    "configuration": {path.name: text for path, text in render_files(Settings.from_environment()).items()},
}))
"""

# A Dagster project with assets and resources of its own, which Dagster's own loader loads.
EXISTING_PROJECT = """
from pathlib import Path
import dagster as dg
from mlops_assets.components.project import platform_definitions

@dg.asset(io_manager_key="warehouse", deps=[dg.AssetKey(["raw", "parcels"])])
def sales() -> int:
    return 1

@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions.merge(
        platform_definitions(),
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        dg.Definitions(assets=[sales], resources={"warehouse": dg.InMemoryIOManager()}),
    )
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and, by a path, the packages of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=current_project().root, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=True)
    (wheel,) = folder.glob("*.whl")
    pip = [str(folder / "venv" / "bin" / "pip"), "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "packages.pth").write_text(sysconfig.get_path("purelib"))
    for command in ("dbt", "pytest"):
        (folder / "venv" / "bin" / command).symlink_to(Path(sysconfig.get_path("scripts")) / command)
    return folder / "venv"


@pytest.fixture(scope="module")
def variables(environment: Path) -> dict[str, str]:
    """The variables of a shell in which this repository is no project."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "PYTHON", "DAGSTER"))}
    return own | {"PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def project(environment: Path, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project, as the command leaves it."""
    folder = tmp_path_factory.mktemp("work")
    mlops = _mlops(environment, folder, variables)
    assert "cd my_company && mlops up" in mlops("init", "my_company").stdout
    return folder / "my_company"


@pytest.fixture(scope="module")
def followed(environment: Path, project: Path, variables: dict[str, str]) -> Path:
    """The project with what the page adds to it."""
    _follow_page(project, variables)
    _mlops(environment, project, variables)("prepare")
    return project


def _mlops(environment: Path, folder: Path, variables: dict[str, str]) -> Mlops:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [environment / "bin" / "mlops", *arguments], cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def _load(environment: Path, project: Path, variables: dict[str, str]) -> dict:
    command = [environment / "bin" / "python", "-c", LOAD]
    done = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_new_project_loads_and_passes_its_own_test(environment: Path, project: Path, variables: dict[str, str]) -> None:
    mlops = _mlops(environment, project, variables)
    assert "dbt project parsed" in mlops("prepare").stdout
    assert "Nothing to prepare." in mlops("prepare").stdout
    package = project / "dbt_project" / "dbt_packages" / "mlops"
    package.unlink()
    mlops("prepare")
    assert (package / "dbt_project.yml").exists()
    assert json.loads(mlops("status", "--json").stdout)["solutions"] == {}
    test = [environment / "bin" / "python", "-m", "pytest", "-q"]
    done = subprocess.run(test, cwd=project, env=variables, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_solution_of_the_page_loads_in_it(environment: Path, followed: Path, variables: dict[str, str]) -> None:
    loaded = _load(environment, followed, variables)
    assert Path(loaded["package"]).is_relative_to(environment)
    assert {"raw/parcels", "features/depot_history", "parcel_delay/spine", "parcel_delay/evaluation"} <= set(loaded["assets"])
    assert not [key for key in loaded["assets"] if key.startswith("configuration_error")]
    # Nothing of this repository is there.
    assert {key.split("/")[0] for key in loaded["assets"]} == {"raw", "features", "parcel_delay", "platform"}
    assert {"parcel_delay_training", "parcel_delay_scoring", "parcel_delay_monitoring"} <= set(loaded["jobs"])
    assert f"directory={followed}" in loaded["configuration"]["supervisord.conf"]
    assert "--module-name my_company.definitions" in loaded["configuration"]["supervisord.conf"]


def test_the_models_of_the_second_page_fit_their_contracts(
    environment: Path, followed: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    written = tmp_path / "my_company"
    shutil.copytree(followed, written, symlinks=True)
    _write_files(written, MODELS_PAGE)
    (spine,) = re.findall(r"^```yaml\n(spine: .*?)^```", MODELS_PAGE, re.DOTALL | re.MULTILINE)
    _change(written / "my_company/defs/parcel_delay/defs.yaml", lambda attributes: attributes.update(yaml.safe_load(spine)))
    _change(written / "my_company/defs/parcels/defs.yaml", lambda attributes: attributes.pop("feature_views"))
    mlops = _mlops(environment, written, variables)
    _write_plants(written / "plants.csv")
    # The first command of the page.
    (line,) = re.findall(r"^mlops (new plants .*)$", PAGE, re.MULTILINE)
    assert "multiclass" in mlops("new", *shlex.split(line)[1:]).stdout
    again = [environment / "bin" / "mlops", *shlex.split(line)]
    done = subprocess.run(again, cwd=written, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, "Nothing is overwritten" in " ".join(done.stderr.split())) == (1, True)
    # Their SQL is bound to empty tables, and its columns and types are compared with the contracts: what differs is in `test_project_check.py`.
    assert "Nothing is wrong in 5 folders." in mlops("check").stdout
    assert [file.name for file in (written / "dbt_project" / "generated").rglob("*.sql")] == ["plants_spine.sql"]


def test_it_loads_beside_the_assets_of_an_existing_project(environment: Path, followed: Path, variables: dict[str, str]) -> None:
    (followed / "my_company" / "definitions.py").write_text(EXISTING_PROJECT)
    # A variable of the project, named by its YAML.
    (followed / ".env").write_text("LOGISTICS=team:logistics\n")
    source = followed / "my_company" / "defs" / "parcels" / "defs.yaml"
    source.write_text(source.read_text().replace("owners: [team:logistics]", 'owners: ["{{ env.LOGISTICS }}"]'))
    loaded = _load(environment, followed, variables)
    assert {"sales", "raw/parcels", "parcel_delay/evaluation"} <= set(loaded["assets"])


@pytest.fixture
def machine_with_uv(environment: Path, variables: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The variables of a machine as a team has it: uv, the Python of this test, an index with the wheel, and no environment yet."""
    venv.create(tmp_path / "tools", with_pip=True)
    subprocess.run([str(tmp_path / "tools" / "bin" / "pip"), "install", "--quiet", "uv"], check=True)
    own = {name: value for name, value in variables.items() if name != "VIRTUAL_ENV"}
    path = f"{tmp_path / 'tools' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return own | {"PATH": path, "UV_FIND_LINKS": str(environment.parent)}


def test_the_workflow_of_a_new_project_passes(
    environment: Path, variables: dict[str, str], machine_with_uv: dict[str, str], tmp_path: Path
) -> None:
    _mlops(environment, tmp_path, variables)("init", "my_company")
    project = tmp_path / "my_company"
    steps = yaml.safe_load((project / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]["steps"]
    [python] = [step["with"]["python-version"] for step in steps if "setup-uv" in step.get("uses", "")]
    assert python in ("3.11", "3.12")
    # Those of a push to main.
    commands = [step["run"] for step in steps if "run" in step and "== 'pull_request'" not in step.get("if", "")]
    for command in commands:
        done = _shell(command, project, machine_with_uv)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert "1 passed" in done.stdout
    assert len(commands) == 5


@pytest.fixture
def folder_for_all() -> Iterator[Path]:
    """An empty folder that others may read: for root, Postgres runs as another user and loads its parts from the environment."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_commit_is_deployed_and_one_with_a_fault_is_not(
    environment: Path, variables: dict[str, str], machine_with_uv: dict[str, str], folder_for_all: Path
) -> None:
    _mlops(environment, folder_for_all, variables)("init", "my_company")
    project, clone = folder_for_all / "my_company", folder_for_all / "clone"
    _shell("git init --quiet && git add . && git commit --quiet --message first", project, GIT)
    _shell(f"git clone --quiet {project} {clone}", folder_for_all, GIT)
    # A path of tests is longer than a Unix socket may have.
    with new_home() as settings:
        machine = machine_with_uv | GIT | {"MLOPS_ENV": "staging", "MLOPS_HOME": str(settings.home)}
        for name in ("dagster", "mlflow", "nats", "serving"):
            machine[f"MLOPS_{name.upper()}_PORT"] = str(getattr(settings, f"{name}_port"))
        deployed = _shell(f"deployments/deploy {clone}", project, machine)
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        first = _shell("git rev-parse HEAD", project, GIT).stdout
        assert f"staging has {first.strip()}." in deployed.stdout
        faulty = project / "my_company" / "defs" / "parcels" / "defs.yaml"
        faulty.parent.mkdir()
        faulty.write_text("type: mlops_assets.RawTables\nattributes: {nothing: true}\n")
        _shell("git add . && git commit --quiet --message faulty", project, GIT)
        refused = _shell(f"deployments/deploy {clone}", project, machine)
        assert (refused.returncode, f"Back to {first.strip()}" in refused.stderr) == (1, True), refused.stdout + refused.stderr
        assert _shell("git rev-parse HEAD", clone, GIT).stdout == first
        state = json.loads(_shell(".venv/bin/mlops status --json", clone, machine).stdout)
        assert {process["state"] for process in state["processes"]} == {"running"}


GIT = {
    f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in (("NAME", "a"), ("EMAIL", "a@example.org"))
}
"""Who commits."""


def _shell(command: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"]} | variables
    return subprocess.run(["bash", "-e", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _write_plants(file: Path) -> None:
    """The file of the page: of three species, with a length in German numbers."""
    rows = [
        f"{1.2 + number % 13 / 10:.1f};{number % 11};{('rote Art', 'Veilchen', 'Rose')[(number % 13 + number % 11) // 8]}"
        for number in range(100)
    ]
    file.write_text("\n".join(["Länge (cm);Blätter;Art der Pflanze", *rows]).replace(".", ","))


def _follow_page(project: Path, variables: dict[str, str]) -> None:
    """Make the folders and files of the page, and the data by its script."""
    (folders,) = re.findall(r"^mkdir -p (.*)$", PAGE, re.MULTILINE)
    for folder in folders.split():
        (project / folder).mkdir(parents=True)
    (script,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    subprocess.run([sys.executable, "-c", script], cwd=project, env=variables, check=True)
    assert _write_files(project, PAGE) == 2


def _write_files(project: Path, page: str) -> int:
    """Write the files that a page shows below their names. Returns how many there are."""
    files = re.findall(r"^`(\S+)`\n\n```(?:yaml|sql)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    for path, text in files:
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text)
    return len(files)


def _change(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the attributes of the component in a YAML file."""
    content = yaml.safe_load(file.read_text())
    change(content["attributes"])
    file.write_text(yaml.safe_dump(content, sort_keys=False))
