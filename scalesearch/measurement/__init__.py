"""Cost, latency and quality."""
