"""Workers on other machines are refused a lake that only this machine has."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from mlops_assets.core.object_storage import ObjectFolder
from mlops_assets.core.settings import Settings
from mlops_assets.engine.engine import EngineError, ProcessEngine
from mlops_assets.engine.table_parts import require_reachable
from mlops_assets.lake.lake import Lake


class Elsewhere(ProcessEngine):
    """An engine with another machine."""

    def other_hosts(self) -> Sequence[str]:
        return ["node-2"]


def test_workers_elsewhere_need_a_catalog_and_files_that_they_reach() -> None:
    here = Settings(home=Path("/srv"))
    lake = Lake("", Path("/srv/lake"), Path("/extensions"))
    require_reachable(ProcessEngine(), lake, here)
    with pytest.raises(EngineError, match="node-2") as refused:
        require_reachable(Elsewhere(), lake, here)
    assert "MLOPS_POSTGRES_URL" in refused.value.remedy
    assert "MLOPS_STORAGE" in refused.value.remedy
    there = Settings(home=Path("/srv"), postgres_url="postgresql://host/db")
    with pytest.raises(EngineError) as refused:
        require_reachable(Elsewhere(), lake, there)
    assert "MLOPS_POSTGRES_URL" not in refused.value.remedy
    require_reachable(Elsewhere(), Lake("", Path("/srv/lake"), Path("/extensions"), ObjectFolder("s3://bucket/lake")), there)
