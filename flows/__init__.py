"""Prefect and the command line: thin layers over ``pipeline``, without tensor arithmetic."""
