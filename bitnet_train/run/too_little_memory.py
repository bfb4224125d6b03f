"""Memory that does not suffice is an error for people: what was estimated, and what takes less."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from bitnet_train.config.schema import Config
from bitnet_train.errors import BitnetTrainError, TrainingError
from bitnet_train.train.loop.budget import Estimate

_SAID = re.compile(r"(can't|cannot|could not) allocate memory|not enough memory|out of memory|bad_alloc", re.IGNORECASE)


@contextmanager
def told_with_the_estimate(config: Config, estimate: Estimate) -> Iterator[None]:
    """Raise TrainingError, with what training was estimated to take, where memory ends in the block."""
    try:
        yield
    except BitnetTrainError:
        raise
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"There is not enough memory for training, which was estimated at {estimate.memory_bytes / 1e9:.2f} GB and "
            f"the activations of {config.trainer.micro_rows} rows of {config.data.context_tokens} tokens "
            f"({' '.join(str(error).split())[:200] or type(error).__name__}). Checkpoints are whole. Close what else "
            f"takes memory, or go on with fewer rows at a time: `bitnet-train train {config.run.dir} "
            "trainer.micro_rows=1`. A new run with an adapter (`adapter=lora_inside`) or with blocks takes less."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ended: Python's own, or what torch and the system say in words."""
    return isinstance(error, MemoryError) or _SAID.search(str(error)) is not None
