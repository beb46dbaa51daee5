"""The local stack: the servers of one machine, kept running by supervisor, with all their state in one folder.

Imported by `operations` and `cli`.
"""
