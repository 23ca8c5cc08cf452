"""Small real things that several tests work with."""
