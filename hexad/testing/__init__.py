"""What tests need, shipped so that users can test too: tiny random models, a fake model whose
tokens are a hash of their prefix.
"""
