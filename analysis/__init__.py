"""What it means: pandas over a trace."""
