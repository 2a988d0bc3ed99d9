"""What is asked for next, who works on it, and which points are best."""
