"""Backups of an installation: making one while it runs, restoring it elsewhere, comparing a state with it. Imported by `cli`.

`point.py` describes a backup, `store.py` the folder that holds several. `databases.py`, `state_files.py` and the clients copy the parts,
`creation.py` and `restoring.py` call them in the order that keeps the parts consistent, which docs/adr/0055 explains.
"""
