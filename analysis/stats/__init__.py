"""Statistics: quantiles, resampling, rates, and whether two traces differ."""
