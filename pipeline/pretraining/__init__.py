"""pipeline/pretraining."""
