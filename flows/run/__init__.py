"""flows/run."""
