"""From labelled rows to a version that passed its gates: dataset, fitting, evaluation, model card."""
