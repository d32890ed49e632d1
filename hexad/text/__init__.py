"""Strings only: tokenizer, chat templates, incremental detokenizer, stop matching.

This room does not know models, arrays or requests.
"""
