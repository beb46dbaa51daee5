"""Who gets in: the secrets of an installation, and the guard that stands before every web application of it. No server, no Dagster."""
