"""The process that holds one model and continues many texts at once: `python -m bitnet_train.serve.worker`.

Every step of the model adds one token to each text that is being written, and reads a part of the prompts that are new;
a text joins and leaves at any step. So one pass over the weights serves all of them, and a long prompt stops nobody.
A text of the native runtime is `==` to what it would be alone: a row of a product knows nothing of the other rows.

It speaks JSON lines (`serve.child`). To it, each with an `id` of the asker's choosing:

    {"do": "write", "id", "prompt": text | token ids | messages, ...}     the fields of `asked.Asked`
    {"do": "cancel", "id"}
    {"do": "tokenize", "id", "prompt", "special"}     {"do": "detokenize", "id", "token_ids"}

and from it `{"ready": {...}}` or `{"failed": message}` once, then `{"events": [...], "state": {...}}` after a step:

    {"id", "is": "begun", "prompt_tokens", "cached_tokens"}
    {"id", "is": "piece", "text", "tokens": [{"id", "text", "logprob", "top"}]}     tokens where logprobs were asked for
    {"id", "is": "done", "finish": "stop" | "length", "prompt_tokens", "new_tokens"}
    {"id", "is": "error", "status", "message", "code"}
    {"id", "is": "answer", ...}                                                     to tokenize and detokenize

In the order of use: `loading` (which engine?), `engine` and `torch_engine`, `asked` (what a request says), `text` (one
continuation), `logprobs`, `remembered` (beginnings that are known already), `batcher` (the steps), `__main__`.
"""
