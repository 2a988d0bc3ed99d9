"""Shows a study in Optuna Dashboard."""
