"""scalesearch: the Pareto front of deployed accuracy against measured latency for a vision network."""
