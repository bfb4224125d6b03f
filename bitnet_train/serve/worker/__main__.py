"""The worker as a program: load, tell what was loaded, then step until the asker is gone."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from typing import Any

from bitnet_train.errors import BitnetTrainError
from bitnet_train.serve import child
from bitnet_train.serve.worker.batcher import Batcher, Limits
from bitnet_train.serve.worker.desk import Desk
from bitnet_train.serve.worker.loading import Opened, Wanted, open_engine
from bitnet_train.serve.worker.text import Text


def main() -> None:
    """Hold the model that the first line names."""
    argument = child.begin()
    try:
        opened = open_engine(Wanted(**argument["model"]))
    except BitnetTrainError as error:
        child.say({"failed": str(error)})
        return
    engine = opened.engine
    desk = Desk(engine, argument.get("variables") or {}, child.say)
    child.say({"ready": _told(opened)})
    desk.open(child.hear())
    write_all(Batcher(engine, Limits(**argument.get("limits", {}))), desk)


def write_all(batcher: Batcher, desk: Desk, say: Callable[[dict[str, Any]], None] = child.say) -> None:
    """Do steps while there is something to write, wait while there is not, end when nobody asks any more."""
    while True:
        try:
            entry = desk.inbox.get(block=not batcher.is_busy)
        except queue.Empty:
            say({"events": batcher.step(), "state": batcher.state()})
            continue
        if entry is None:
            return
        if isinstance(entry, Text):
            batcher.add(entry)
        else:
            batcher.cancel(entry)
            if not batcher.is_busy:
                say({"events": [], "state": batcher.state()})


def _told(opened: Opened) -> Mapping[str, Any]:
    facts = opened.engine.facts
    return {"engine": facts.name, "reason": opened.reason, "context": facts.context, "vocab": facts.vocab}


if __name__ == "__main__":
    main()
