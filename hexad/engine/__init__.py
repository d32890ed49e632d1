"""The loop, the runner (plan to tensors to logits to tokens), the worker process, IPC, the
supervisor, `LLM` and `AsyncLLM`. It joins the rooms below and holds no policy of its own.
"""
