"""The command line: `bitnet-train VERB [RECIPE or path] [key=value ...]`. What they do is in `verbs/`.

verbs      the table of verbs, with an example each      browse   ls, show, cp
arguments  words and flags -> one `Call`                 doctor   is this machine ready?
"""
