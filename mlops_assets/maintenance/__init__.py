"""Upkeep of an installation as assets: what grows with use is bounded. Imported by `components` and `operations`."""
