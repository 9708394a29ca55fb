"""One-prompt filters: pure numerics that know no selector."""
