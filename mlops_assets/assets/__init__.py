"""Asset factories, one module a stage, in the order the data flows."""
