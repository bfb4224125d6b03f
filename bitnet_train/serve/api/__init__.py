"""The routes that programs already know how to ask: OpenAI's completions and chat, and what is needed around them.

`forms` (what a request may say), `errors`, `texts` (from a request to the texts of a worker), `hand` (one worker and
the queues of those who wait for it), `models` (workers by name, loaded and unloaded by use), `answers` (JSON of answers
and of the pieces of a stream), `writing` (a request from its texts to its answer, and the client that goes away),
`metrics`, `routes`, `app`.
"""
