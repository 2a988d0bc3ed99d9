"""scalesearch: the Pareto front of deployed accuracy against measured latency, over how a vision network is scaled and compressed."""
