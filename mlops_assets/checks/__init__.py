"""Asset check specifications and their evaluation, from raw tables to drift: the one mechanism for quality gates."""
