"""The command line: `bitnet-train VERB [RECIPE or path] [key=value ...]`. Stages are in `stages.py`.

verbs      the table of verbs, with an example each      browse   ls, show, cp
arguments  words and flags -> one `Call`                 doctor   is this machine ready?
"""
