"""A whole run: settings, checkpoints, several processes, faults."""
