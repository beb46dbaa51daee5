import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_assets.core.environment_files import environment_prefix, read_environment_file


def test_environment_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        '# a comment\n\nMLOPS_HOME = "/srv/mlops"\nexport MLOPS_DAGSTER_PORT=3100\nMLOPS_NATS_URL=nats://u:p=w@host\n'
    )
    assert read_environment_file(file) == {
        "MLOPS_HOME": "/srv/mlops",
        "MLOPS_DAGSTER_PORT": "3100",
        "MLOPS_NATS_URL": "nats://u:p=w@host",
    }
    assert read_environment_file(tmp_path / "absent") == {}


def test_a_wrong_line_of_the_environment_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    for wrong in ("MLOPS_SERVING_TOKEN secret", "MLOPS_SERVING_TOKEN", "=secret", "MLOPS_SERVING_TOKEN='secret"):
        file.write_text(f"MLOPS_HOME=/srv\n{wrong}\n")
        with pytest.raises(ValueError, match=r"\.env, line 2: this is not NAME=value\.$") as raised:
            read_environment_file(file)
        assert "secret" not in str(raised.value)


def test_the_environment_names_a_file_of_variables(tmp_path: Path) -> None:
    root = tmp_path / "company"
    (root / "deployments").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.mlops]\n")
    (root / "deployments" / "local.env").write_text("MLOPS_SERVING_PORT=1\nMLOPS_NATS_PORT=1\n")
    (root / "deployments" / "staging.env").write_text("MLOPS_SERVING_PORT=2\nMLOPS_NATS_PORT=2\nMLOPS_MLFLOW_PORT=2\n")
    (root / ".env").write_text("MLOPS_NATS_PORT=3\nMLOPS_MLFLOW_PORT=3\n")
    read = (
        "import json; from mlops_assets.core.settings import Settings; s = Settings.from_environment();"
        "print(json.dumps([s.serving_port, s.nats_port, s.mlflow_port]))"
    )

    def ports(**variables: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", read], cwd=root, env=variables, capture_output=True, text=True, check=False)

    assert json.loads(ports().stdout) == [1, 3, 3]
    assert json.loads(ports(MLOPS_ENV="staging", MLOPS_MLFLOW_PORT="4").stdout) == [2, 3, 4]
    assert "MLOPS_ENV='prod': There is no prod.env in" in ports(MLOPS_ENV="prod").stderr


def test_a_path_is_one_of_the_project_wherever_a_command_is_called(tmp_path: Path) -> None:
    root = tmp_path / "company"
    (root / "deployments").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.mlops]\n")
    (root / "deployments" / "prod.env").write_text(
        "MLOPS_HOME=.mlops-prod\nMLOPS_BACKUP_FOLDER=/mnt/disk\nMLOPS_TLS_CA=tls/ca.pem\n"
    )
    read = (
        "from mlops_assets.core.settings import Settings; s = Settings.from_environment(); "
        f"r = {str(root.resolve())!r}; print(s.home.relative_to(r), s.backup_folder, s.listening.authorities.relative_to(r))"
    )
    for folder in (root, root / "deployments"):
        command = [sys.executable, "-c", read]
        done = subprocess.run(command, cwd=folder, env={"MLOPS_ENV": "prod"}, capture_output=True, text=True, check=False)
        assert done.stdout == ".mlops-prod /mnt/disk tls/ca.pem\n", done.stderr


def test_the_variables_of_a_team_are_exported_and_those_of_the_platform_not(tmp_path: Path) -> None:
    root = tmp_path / "company"
    root.mkdir()
    (root / "pyproject.toml").write_text("[tool.mlops]\n")
    (root / ".env").write_text("BUCKET=parcels\nREGION=eu\nMLOPS_NATS_PORT=3\n")
    code = (
        "import json, os; from mlops_assets.core.environment_files import export_project_variables; export_project_variables(); "
        "print(json.dumps([os.environ.get(name) for name in ('BUCKET', 'REGION', 'MLOPS_NATS_PORT')]))"
    )
    environment = {"PATH": "/usr/bin:/bin", "REGION": "us"}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["parcels", "us", None]


def test_a_file_that_was_changed_counts_in_processes_that_inherit_what_it_was(tmp_path: Path) -> None:
    root = tmp_path / "company"
    root.mkdir()
    (root / "pyproject.toml").write_text("[tool.mlops]\n")
    (root / ".env").write_text("FLOOR=0.5\nGONE=yes\nGIVEN=file\n")
    # As `mlops up` starts the servers, which load the definitions again after `mlops reload`.
    code = (
        "import os, pathlib, subprocess, sys; from mlops_assets.core.environment_files import export_project_variables; "
        "export_project_variables(); print(*(os.environ.get(name) for name in ('FLOOR', 'GONE', 'GIVEN')), flush=True); "
        "pathlib.Path('.env').write_text('FLOOR=0.8\\nGIVEN=later\\n'); "
        "len(sys.argv) > 1 and subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    )
    environment = {"PATH": "/usr/bin:/bin", "GIVEN": "process"}
    done = subprocess.run(
        [sys.executable, "-c", code, code], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0.5 yes process\n0.8 None process\n"


def test_no_variable_that_was_left_set_leads_a_branch_to_another_environment(tmp_path: Path) -> None:
    root = tmp_path / "company"
    branch = root / ".mlops-branches" / "try"
    (root / "deployments").mkdir(parents=True)
    branch.mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.mlops]\n")
    (root / ".env").write_text("MLOPS_POSTGRES_URL=postgresql://prod/x\nBUCKET=parcels\n")
    (root / "deployments" / "prod.env").write_text("MLOPS_STORAGE=s3://prod\nREGION=eu\nMLOPS_NATS_PORT=5\n")
    (branch / "branch.env").write_text(f"MLOPS_BRANCH_OF='prod'\nMLOPS_HOME='{branch}'\nMLOPS_DAGSTER_PORT='7'\n")
    read = (
        "import os; from mlops_assets.core.settings import Settings; from mlops_assets.core.environment_files import *; "
        "export_project_variables(); s = Settings.from_environment(); "
        "print(s.home, s.postgres_url, s.storage, s.dagster_port, s.nats_port, os.environ['BUCKET'], os.environ['REGION'])"
    )

    def settings(environment: str) -> subprocess.CompletedProcess:
        left = {"MLOPS_ENV": environment, "MLOPS_HOME": "/srv/prod", "MLOPS_NATS_PORT": "6", "MLOPS_REDIS_URL": "redis://prod"}
        return subprocess.run([sys.executable, "-c", read], cwd=root, env=left, capture_output=True, text=True, check=False)

    assert settings("branch-try").stdout == f"{branch} None None 7 4222 parcels eu\n"
    assert settings("prod").stdout == "/srv/prod postgresql://prod/x s3://prod 3000 6 parcels eu\n"
    assert "MLOPS_ENV='branch-gone': there is no such branch" in settings("branch-gone").stderr


def test_what_an_environment_has_of_its_own_is_in_its_file(tmp_path: Path) -> None:
    root = tmp_path / "company"
    (root / "deployments").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.mlops]\n")
    (root / "deployments" / "dev.env").write_text("MLOPS_HOME=.mlops-dev\nMLOPS_DAGSTER_PORT=3100\n")
    (root / "deployments" / "prod.env").write_text(
        "MLOPS_HOME=.mlops-prod\nMLOPS_STORAGE=s3://company/prod\nMLOPS_POSTGRES_URL=postgresql://prod-db/\nMLOPS_NATS_URL=nats://prod\n"
        "MLOPS_MLFLOW_URL=http://mlflow-prod\nMLOPS_DAGSTER_PORT=3200\nMLOPS_ENGINE=ray\nAPPROVAL=four_eyes\nCOOLDOWN=30d\n"
    )
    read = (
        "from mlops_assets.core.settings import Settings; from mlops_assets.core.environment_files import export_project_variables; "
        "from mlops_assets.schema.deployment_section import Deployment; from mlops_assets.schema.monitoring_section import Retraining; "
        "export_project_variables(); s = Settings.from_environment(); "
        "deployment = Deployment.model_validate({'approval': \"{{ env('APPROVAL', 'none') }}\"}); "
        "retraining = Retraining.model_validate({'cooldown': \"{{ env('COOLDOWN', '1d') }}\"}); "
        "print(s.home.name, s.storage, s.postgres_url, s.nats_url, s.mlflow_server, s.dagster_port, s.engine, deployment.approval, "
        "retraining.cooldown)"
    )

    def stated(environment: str) -> str:
        variables = {"MLOPS_ENV": environment}
        done = subprocess.run([sys.executable, "-c", read], cwd=root, env=variables, capture_output=True, text=True, check=False)
        return done.stdout or done.stderr

    assert stated("dev") == ".mlops-dev None None None None 3100 process none 1d\n"
    prod = ".mlops-prod s3://company/prod postgresql://prod-db/ nats://prod http://mlflow-prod 3200 ray four_eyes 30d\n"
    assert stated("prod") == prod


def test_titles_and_logs_begin_with_an_environment_that_is_not_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_ENV", "local")
    assert environment_prefix() == ""
    monkeypatch.setenv("MLOPS_ENV", "prod")
    assert environment_prefix() == "[prod] "
