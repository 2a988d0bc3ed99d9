"""The tasks that networks are made for: one folder for each task, and the interface that every task implements."""
