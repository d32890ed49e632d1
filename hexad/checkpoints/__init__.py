"""Formats in: from a name or a folder to configuration, weights and tokenizer files.

Every byte is parsed by a checked decoder with limits. This room knows file formats and
the Hugging Face hub; it does not know what a model computes.
"""
