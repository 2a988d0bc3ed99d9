"""What is kept of a study and how it is shown."""
