"""The files of a bundle, each with its reader: what is checked before anything of it is believed."""
