"""What is asked next, who works on it, and which points are best."""
