"""flows/labelling."""
