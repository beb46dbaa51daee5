"""How many random examples a test of a property gets. No tests here."""

import os

_TIMES = int(os.environ.get("MLOPS_EXAMPLES", "1"))


def examples(few: int) -> int:
    """`few` in `make test`, ten times as many in `make test-all`, and more for a search: `MLOPS_EXAMPLES` times as many."""
    return few * _TIMES
