"""Linear, norm, rotary, attention, embedding: thin objects that bind weights once and call ops
with an explicit step. They do not know which kernel set runs.
"""
