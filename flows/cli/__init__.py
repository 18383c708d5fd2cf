"""flows/cli."""
