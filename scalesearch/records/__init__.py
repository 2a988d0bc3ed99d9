"""The stored files of a study, and the tables that programs read."""
