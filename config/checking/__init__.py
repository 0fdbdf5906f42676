"""Check a configuration without building anything."""
