"""What another policy would have made of a captured run."""
