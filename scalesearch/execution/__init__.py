"""Where work is done: worker processes, how they are started and stopped, and how they end."""
