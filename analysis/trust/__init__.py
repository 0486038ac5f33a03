"""Whether a trace can be trusted: its rules, and second witnesses."""
