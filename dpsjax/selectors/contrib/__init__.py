"""The field: one paper, one file. A file here is found by the catalogue without more."""
