"""Raw tables: readers of files and databases, deliveries and their checks, and the assets that write them.

Imported by `features`, the later stages and the layers above.
"""
