"""What a change of a project does before it is merged: its definitions, its data and its models beside those of before.

Imported by the command `mlops diff` alone.
"""
