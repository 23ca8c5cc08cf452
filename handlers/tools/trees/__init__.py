"""Directories of a set in which files lie as they are, and the parts that list them."""
