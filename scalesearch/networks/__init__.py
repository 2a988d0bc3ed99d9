"""Base networks as data, their scaling, and the modules built from them."""
