"""Training: raw logs to a run directory."""
