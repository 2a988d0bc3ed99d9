"""The chain: from a candidate to a plan, a trained and smaller network, a file, an engine, and measured numbers."""
