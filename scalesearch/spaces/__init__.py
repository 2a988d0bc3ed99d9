"""The axes of a search space: their dotted names, and the candidates made from them."""
