"""The proof that a packed folder, or an export of it, computes what was trained.

Not `validate/`, as its verb is called: `bitnet_train.validate` is the public function.
"""
