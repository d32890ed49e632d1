"""Workloads, the load generator and the measured skills. Knows the public interfaces only."""
