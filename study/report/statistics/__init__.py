"""Differences of routes over seeds: estimates, simultaneous intervals, equivalence. Pure functions over numbers."""
