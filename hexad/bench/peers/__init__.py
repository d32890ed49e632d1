"""One file an engine that Hexad is compared with: how it is converted for, loaded and run.

They run in environments of their own, where Hexad is not installed: the standard library, the
engine, and `protocol.py` beside them.
"""
