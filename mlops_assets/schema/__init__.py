"""What YAML files may state: sources, solutions, training sections, and errors with their file and line. Imports nothing else of the package."""
