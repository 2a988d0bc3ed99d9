"""Measurement of a network's cost, latency and quality."""
