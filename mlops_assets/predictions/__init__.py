"""Predictions in the lake, from batches and from servers, and their outcomes. Imported by `monitoring` and the layers above."""
