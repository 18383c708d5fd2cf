"""pipeline/method."""
