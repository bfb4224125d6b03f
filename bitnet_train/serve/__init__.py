"""Answering programs and people: a server that speaks as OpenAI's does, a chat in a terminal, a page to play with.

child        a process of its own that speaks JSON lines     guard    who may ask, and how much

Floors inside: `settings`, `child`, `guard`; above them `worker/` and `chat/`; `api/`; `playground/`, which mounts it.
"""
