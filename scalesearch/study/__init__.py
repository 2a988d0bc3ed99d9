"""A study as a whole: its session, its data, its run, and how it is read."""
