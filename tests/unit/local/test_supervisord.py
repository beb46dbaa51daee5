import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_for

from mlops_assets.local.supervisord import NamedLogFile

PROGRAM = """[supervisord]
logfile={folder}/supervisord.log
pidfile={folder}/pid
nodaemon=true
[program:nats]
command=printf '[staging] named\\n\\nby nobody\\nno end'
startsecs=0
autorestart=false
redirect_stderr=true
stdout_logfile={folder}/nats.log
"""


def test_each_line_of_all_logs_names_the_environment(tmp_path: Path) -> None:
    (tmp_path / "conf").write_text(PROGRAM.format(folder=tmp_path))
    command = [sys.executable, "-m", "mlops_assets.local.supervisord", "-c", str(tmp_path / "conf")]
    supervisor = subprocess.Popen(command, env=os.environ | {"MLOPS_ENV": "staging"}, stdout=subprocess.DEVNULL, cwd=tmp_path)
    log, own_log = tmp_path / "nats.log", tmp_path / "supervisord.log"
    wait_for(lambda: own_log.exists() and "exited: nats" in own_log.read_text())
    supervisor.terminate()
    assert supervisor.wait(60) == 0
    assert log.read_text() == "[staging] named\n[staging] \n[staging] by nobody\n[staging] no end"
    lines = own_log.read_text().splitlines()
    assert [line for line in lines if not line.startswith("[staging] 20")] == []


@pytest.mark.parametrize("size", [1, 2, 7, 10, 100])
def test_a_name_in_pieces_is_one_name(size: int, tmp_path: Path) -> None:
    file = NamedLogFile(str(tmp_path / "log"))
    file.prefix = b"[prod] "
    content = b"[prod] first\nsecond [prod] \n[pr\xffod\n\n[prod] third\n"
    pieces = [file.name_lines(content[start : start + size]) for start in range(0, len(content), size)]
    file.close()
    assert b"".join(pieces) == b"[prod] first\n[prod] second [prod] \n[prod] [pr\xffod\n[prod] \n[prod] third\n"
