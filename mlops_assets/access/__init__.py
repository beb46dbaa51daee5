"""Credentials of an installation, and the guard before every web application.

No server and no Dagster; every layer above `core` may import it.
"""
