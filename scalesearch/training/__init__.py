"""Data in memory, brief training, and trained weights kept by key."""
