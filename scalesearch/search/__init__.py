"""The search: which candidate comes next, which worker evaluates it, and which points are best."""
