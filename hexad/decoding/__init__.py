"""Logits to tokens: processors, grammars, the sampler, log-probabilities.

Every feature here is a pure function of (request state, logits row). This room does not know
which other rows there are, nor where the logits came from.
"""
