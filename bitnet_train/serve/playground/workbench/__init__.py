"""The process that holds one model and works on it: `python -m bitnet_train.serve.playground.workbench`.

It alone parses the files of strangers. It is told `{"op", "job", "asked"}` and says `{"job", "event", "data"}`; one job
at a time, and `{"op": "cancel"}` ends that one within a moment.

    look, told     what is refused at once; errors in words, without torch
    opened         the model, its layers and what may become of them
    task           one job: what it says, and whether it is still wanted
    measured       the float model's predictions on a text, kept, and a choice of layers beside them
    bearing, swap, continuation, benchmark      the jobs
    packing        a choice of layers as a packed folder, for the native runtime
"""
