"""Front members trained at full length once the search is over."""
