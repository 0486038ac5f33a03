"""Other tools' formats: into a trace, and out of it."""
