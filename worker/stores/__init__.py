"""Where backups live."""
