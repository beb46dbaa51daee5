"""Answering with a promoted model: the bundle and what serves it. Imports neither Dagster nor scikit-learn."""
