"""Everything that knows kombu: connections, topology, publishing."""
