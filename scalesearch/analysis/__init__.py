"""Numbers computed from records: fronts, choices, comparisons, ranks. No I/O."""
