"""Pictures, tables and words that show recorded results."""
