"""Where requests arrive."""
