"""What a notebook calls: names of `configs/` in place of settings objects, a user's own loader in place of `data`.

    choices     the name of a choice -> the settings it stands for
    surgery     plan, convert, attach
    training    fit, distillation_loss

Each function names its choices as the command line does (`weight="binary_row"` for `weight=binary_row`) and takes the
object of a settings class as well. The rest of the public names lives where it works; `bitnet_train/__init__.py` lists
all of them. Nothing here reads a run directory or writes facts: that is `run/`.
"""
