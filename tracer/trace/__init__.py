"""A trace on disk: what its tables are, how it is written and how it is read."""
