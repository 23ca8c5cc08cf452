"""What we promised and how far we got."""
