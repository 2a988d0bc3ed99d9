"""A whole study as one HTML file that needs only a browser."""
