"""The searches that a user would write by hand, and how their fronts are compared with that of `scalesearch run`."""
