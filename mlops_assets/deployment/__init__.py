"""Which version predicts: promotion, rollback, challengers, and the version that is really served."""
