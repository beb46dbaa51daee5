"""How runs are queued, started, watched and recovered: everything about a run that is not what it computes."""
