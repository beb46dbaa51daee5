"""Training, from labelled rows to a version that passed its gates: dataset, fitting, evaluation, model card.

Imported by `deployment`, the later stages and the layers above.
"""
