"""A task of the tests: how bright is this picture, and which of its halves is brighter? Two outputs, no classes."""
