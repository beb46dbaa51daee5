"""A solution from one table: what is inferred from its rows, and the two YAML files that say so. Imported by the command `mlops new`.

`answers.py` holds what a person said, `reading.py` and what it imports find out how the rows are read, `roles.py`, `label.py`, `key.py`,
`moments.py` and `table_calendar.py` what the columns are for. `proposal.py` calls them in order, `writing.py` writes the files.
"""
