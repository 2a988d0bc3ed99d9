"""The family of backends."""
