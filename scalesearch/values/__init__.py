"""The frozen values that every stage takes and returns. Nothing here imports torch or optuna, or does any I/O."""
