"""A Go-like scheduler whose Ps can be retaken by every policy of the discussion."""
