"""The schema of YAML files: sources, solutions, training sections, and errors with their file and line.

It imports no other folder; all may import it.
"""
