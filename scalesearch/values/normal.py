"""Numbers of the normal distribution."""

Z_975 = 1.959964
"""97.5 % quantile: so many standard deviations on both sides hold 95 %."""
