"""A run whose configuration holds a secret is its owner's alone: every file and folder that it writes.

A run needs its tokens and keys to go on, so config.yaml holds them as they were given; a prompt or the name of a figure
may repeat them. So it is not asked what each file says: where `redaction` finds anything to take out, none can be read
by others (mode 0600, folders 0700), those that loggers and libraries write too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bitnet_train.train.trackers.redaction import redact


@contextmanager
def private_where_secret(settings: Mapping[str, Any]) -> Iterator[None]:
    """Have what is made in the block readable for its owner alone, where the settings hold a token, a key, a password.

    The mask of new files is one for all threads of a process.
    """
    before = os.umask(0o077) if redact(settings) != settings else None
    try:
        yield
    finally:
        if before is not None:
            os.umask(before)
