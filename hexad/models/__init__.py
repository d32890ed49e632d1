"""One readable file a family; the file name is the `model_type`.

A model file is math on ops and plain views. Weight names live in `names.py`. This room does not
know devices, requests or pages.
"""
