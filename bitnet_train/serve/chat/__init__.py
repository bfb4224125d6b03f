"""`bitnet-train chat`: a conversation with a model in a terminal, or through pipes.

typed.py          what is typed -> a message: several lines, limits
plain_reader.py   lines of a pipe; terminal_reader.py: a terminal, with history and editing
commands.py       THE table of `/commands`
conversation.py   the messages; chat_file.py: as a file; fitting.py: as many of them as the context takes
parameters.py     `/params`
speaker.py        a model that answers; speakers.py: by the native runtime or by torch
screen.py         what is shown, and nothing of it raw; columns.py, parting.py: two answers side by side
session.py        all of it together
"""
