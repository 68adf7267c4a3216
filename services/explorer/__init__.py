"""Explores every order of delivery: the three machines in memory, the world outside, and the rules they must keep."""
