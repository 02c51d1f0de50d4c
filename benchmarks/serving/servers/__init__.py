"""Servers that are compared with: each is started in a process of its own."""
