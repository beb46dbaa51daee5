"""Promotion, rollback, challengers, and the check of the served version. Imported by `predictions`, `monitoring` and the layers above."""
