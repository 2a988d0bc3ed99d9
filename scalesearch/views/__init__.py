"""Pictures, tables and words for what is recorded."""
