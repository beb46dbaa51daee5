"""Credentials of an installation, its callers and persons, the audit log, and the guard before every web application.

No server and no Dagster; every layer above `core` may import it.
"""
