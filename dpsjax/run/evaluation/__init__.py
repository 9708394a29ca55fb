"""Evaluate a policy on problems: what is asked, of whom, and what came out."""
