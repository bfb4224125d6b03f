"""Chat templates: programs of strangers that turn messages into text, rendered where they can be ended.

render      what everything else calls: a chat, with a template's source or with a tokenizer of transformers
process     the process that renders, started at the first chat, and what becomes of it
program     what runs in it: Jinja's sandbox as transformers sets it up, and limits; it imports nothing of ours
"""
