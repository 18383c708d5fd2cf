"""pipeline/backbone."""
