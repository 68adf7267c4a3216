"""The benchmark: a closed loop over a fresh system, what it costs, and what the same bytes and rows cost without logic."""
