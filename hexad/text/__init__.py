"""Strings only: tokenizer, chat templates, incremental detokenizer, stop matching, replies and their grammars.

This room does not know models, arrays or requests.
"""
