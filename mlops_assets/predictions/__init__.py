"""Predictions in the lake, from batches and from servers, and what became of them."""
