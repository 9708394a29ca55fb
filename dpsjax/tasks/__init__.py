"""Prompts and verifiers, one module per task; see `dpsjax.tasks.base` for what a task is."""
