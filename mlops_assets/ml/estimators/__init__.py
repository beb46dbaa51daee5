"""Estimators of our own. Their modules import scikit-learn: import them inside functions."""
