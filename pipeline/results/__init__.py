"""pipeline/results."""
