"""Sampled requests as they were scored, written beside the response path, to be replayed later."""
