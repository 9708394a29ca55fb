"""The laboratory: simulated students, recorded traces and comparisons at equal rollouts."""
