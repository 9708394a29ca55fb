"""The curriculum laboratory."""
