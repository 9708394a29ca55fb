"""Runs: settings, checkpoints, processes, faults."""
