"""Versions of a bundle: where they are kept, which is to be served, how one is loaded, and who may say so."""
