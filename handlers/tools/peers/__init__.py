"""Machines, and directories of this one, whose collected files are brought together in one set."""
