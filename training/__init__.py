"""Raw logs to a run directory: data sets, preparation, REACTION, its training loop and its reports."""
