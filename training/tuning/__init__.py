"""The short built-in search: `python -m training tune`."""
