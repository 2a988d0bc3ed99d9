"""The chain: a candidate becomes a plan, then a trained, smaller network, a file, an engine, and numbers."""
