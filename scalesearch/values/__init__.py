"""The nouns: frozen values that every stage takes and returns. No torch, no optuna, no I/O."""
