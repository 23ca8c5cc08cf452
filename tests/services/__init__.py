"""Real servers for tests, each on a free loopback port with its own data."""
