"""What runs: one folder a source or a solution."""
