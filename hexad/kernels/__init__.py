"""The only door to hardware.

`ops.py` states one signature an op; a *set* implements them all: `reference` (numpy,
readable, the oracle), `native` (C++ on the CPU) and `torch` (any torch device). This
room knows arrays and pages; it does not know models, requests or files.
"""
