"""The front doors, one file a dialect: wire to request and back, nothing else.

This room knows HTTP and JSON; it does not know pages, logits or processes.
"""
