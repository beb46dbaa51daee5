"""The command `mlops`: one module per group of commands, with options and printing only. Nothing imports it."""
