"""`bitnet-train VERB [RECIPE or path] [key=value ...]`: read the words, compose, call one stage, report.

Exit codes: 0 done; 1 failed (an error with a message, or facts that say `passed: false`); 2 wrong usage (nothing was
loaded); 130 and 143 interrupted. With `--json` the facts are one JSON document on stdout and everything else goes to
stderr. An unexpected error leaves its traceback in the run directory; BITNET_DEBUG=1 prints it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from bitnet_train.cli.arguments import read_call
from bitnet_train.cli.typed_text import decoded, print_everything, read_prompt
from bitnet_train.errors import BitnetTrainError, ConfigError
from bitnet_train.facts import Facts, plain
from bitnet_train.verbs import RECIPE, SOURCE, VERBS, WORD_KINDS, Call, Verb

if TYPE_CHECKING:
    from bitnet_train.config import Config

QUICK_NOTE = "`--quick`: little training on little text, so the figures say what comes, not what the recipe reaches."
SPIN = ("GOMP_SPINCOUNT", "20000")
"""Read by GNU OpenMP when torch is imported: its threads spin some hundred microseconds while they wait, then sleep.
By default they spin for milliseconds, on the very cores that the kernels' own threads and other programs want.
"""
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; argparse itself ends help and unknown flags."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in given
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(*SPIN)
    print_everything()
    try:
        with _sigterm_exits():
            facts = plain(_answer(read_call(decoded(given))))
        if as_json:
            print(json.dumps(facts, indent=2, default=str))
        sys.stdout.flush()  # a reader that has gone is noticed here, and not by a traceback as Python ends
    except (Exception, KeyboardInterrupt) as error:
        return _failed(error, as_json)
    except SystemExit as stop:
        if str(stop) != str(stop.code):  # an interrupted training says what it saved
            print(stop, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else FAILED
    return FAILED if facts.get("passed") is False else DONE


def _answer(call: Call) -> Facts | dict[str, Any]:
    """Do what was asked, with human text on stderr where stdout belongs to the JSON document."""
    with contextlib.redirect_stdout(sys.stderr) if call.json else contextlib.nullcontext():
        return _run_stage(call) if call.verb.is_stage else _home(call.verb)(call)


def _home(verb: Verb) -> Callable[..., Facts | dict[str, Any]]:
    return getattr(import_module(f"bitnet_train.verbs.{verb.function}"), verb.function)


def _run_stage(call: Call) -> Facts | dict[str, Any]:
    config = compose_call(call)
    if config.dry_run and not config.quiet:  # before torch is imported, which takes seconds
        print(f"Dry run of {config.recipe}, model {config.model.source}: nothing is trained or kept.", flush=True)
    from bitnet_train.run.hold import holding

    verb = call.verb
    with holding(config, verb.name, is_new=verb.word in (RECIPE, SOURCE), writes=verb.writes) as held:
        try:
            return _home(verb)(held)
        except Exception as error:
            if not isinstance(error, BitnetTrainError):
                _keep_traceback(held, error)
            raise


def compose_call(call: Call) -> Config:
    """Compose the configuration of a call and check that its first word names what the verb works on."""
    from bitnet_train.config import changed
    from bitnet_train.config.compose import compose
    from bitnet_train.config.idle import refuse_idle_keys
    from bitnet_train.config.inputs import refuse_missing_inputs
    from bitnet_train.config.unread import refuse_unread_keys

    composed = compose(call.words[0] if call.words else None, overrides_of(call))
    if composed.target.kind not in WORD_KINDS[call.verb.word]:
        got = f"`{call.words[0]}` names a {composed.target.kind} instead" if call.words else "none is given"
        raise ConfigError(
            f"`bitnet-train {call.verb.name}` works on a {call.verb.word}; {got}. "
            f"Example: `bitnet-train {call.verb.examples[0]}`. `bitnet-train ls runs` lists runs."
        )
    config = changed(composed.config, {"quiet": call.quiet, "dry_run": call.dry_run})
    if call.prompt is not None:
        config = changed(config, {"generate.prompt": read_prompt(call.prompt)})
    if call.beside:
        config = changed(config, {"chat.beside": True})
    if _wants_debug():
        config = changed(config, {"debug.enabled": True})
    if call.verb.opens_inputs:
        refuse_missing_inputs(config, composed.origins)
    reads = {name: verb.reads for name, verb in VERBS.items()}
    refuse_unread_keys(config, composed.origins, composed.target, call.verb.name, reads)
    idle = refuse_idle_keys(config, composed.origins, composed.target, call.verb.reads_anyway)
    quick = [QUICK_NOTE] if call.quick else []
    for note in [] if call.quiet else [*quick, *composed.notes, *idle]:
        print(f"note: {note}", file=sys.stderr)
    return config


def overrides_of(call: Call) -> tuple[str, ...]:
    """Return the `key=value` words of a call, `--quick` spelled out: a length that is given takes that of `--quick`.

    Raises ConfigError when a choice of `debug` is given too.
    """
    if not call.quick:
        return call.overrides
    given = {word.partition("=")[0].removeprefix("trainer.") for word in call.overrides}
    if "debug" in given:
        raise ConfigError(
            "`--quick` chooses `debug=quick`, and another choice of `debug` is given. Leave one of them out."
        )
    own_length = ("trainer.max_minutes=null",) if given & {"max_steps", "max_tokens", "max_epochs"} else ()
    return ("debug=quick", *own_length, *call.overrides)


def _failed(error: BaseException, as_json: bool) -> int:
    """Say what went wrong, without a traceback unless BITNET_DEBUG asks for it."""
    if isinstance(error, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    expected = isinstance(error, BitnetTrainError)
    if _wants_debug():
        traceback.print_exception(error)
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    for note in getattr(error, "__notes__", []):
        print(note, file=sys.stderr)
    if not expected and not _wants_debug():
        print("This is unexpected. BITNET_DEBUG=1 prints the traceback.", file=sys.stderr)
    if as_json:
        print(json.dumps({"passed": False, "error": {"type": type(error).__name__, "message": str(error)}}, indent=2))
    return USAGE if isinstance(error, ConfigError) else FAILED


def _wants_debug() -> bool:
    return os.environ.get("BITNET_DEBUG") == "1"


def _keep_traceback(config: Config, error: Exception) -> None:
    folder = Path(config.run.dir) if config.run.dir else None
    if folder is not None and folder.is_dir():
        with contextlib.suppress(OSError):
            (folder / "traceback.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            error.add_note(f"The traceback is in {folder / 'traceback.txt'}.")


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """End with 143 on SIGTERM; training replaces the handler by one that saves a checkpoint first."""

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + signum)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: signals are the host program's business
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
