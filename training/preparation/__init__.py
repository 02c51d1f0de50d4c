"""Raw rows to encoded splits, step by step; `training.prepare` puts them in order."""
