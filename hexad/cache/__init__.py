"""Pages: the pool, the prefix tree over them, and their reference counts.

Plain Python: this room knows page numbers and token ids, not what a page holds.
"""
