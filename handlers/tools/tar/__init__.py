"""GNU tar's archives and snapshot files: how they are made, read, restored."""
