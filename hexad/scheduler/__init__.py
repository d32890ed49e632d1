"""Which tokens of which request run in the next step: admission, budgets, chunking,
preemption, fairness.

Plain Python: no arrays, no clock, no sockets. Time and execution are handed in.
"""
