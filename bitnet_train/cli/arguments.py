"""Words and flags of the command line, read with argparse: nothing else is imported, so `--help` is quick."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from functools import partial

from bitnet_train import __version__
from bitnet_train.columns import WIDTH, fold, fold_command, fold_named
from bitnet_train.errors import ConfigError
from bitnet_train.verbs import VERBS, Call, Verb
from bitnet_train.word_as_path import is_there

MULTIRUN_FLAGS = ("-m", "--multirun")
_OVERRIDE = re.compile(r"^[+~]*[A-Za-z_][\w./@-]*=")


def read_call(arguments: Sequence[str]) -> Call:
    """Read one command line.

    Help, `--version` and unknown flags end the process as argparse does (0, 0, 2). Raises `ConfigError` for an unknown
    verb, and for words the verb does not take.
    """
    if arguments and arguments[0] in MULTIRUN_FLAGS:
        raise _multirun(arguments[0])
    if not arguments or arguments[0].startswith("-"):
        program_parser().parse_args(list(arguments))
        program_parser().print_help()
        raise SystemExit(2)
    verb = VERBS.get(arguments[0])
    if verb is None:
        near = difflib.get_close_matches(arguments[0], VERBS, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ConfigError(f"There is no verb `{arguments[0]}`.{hint} Verbs: {', '.join(VERBS)}.")
    flags = _read_flags(verb, list(arguments[1:]))
    options = {name: value for name, value in vars(flags).items() if name != "words"}
    overrides = tuple(word for word in flags.words if _is_override(word))
    words = _counted(verb, tuple(word for word in flags.words if not _is_override(word)))
    if verb.text:
        options["prompt"] = _one_prompt(verb, options["prompt"], words[1:], overrides)
        words = words[:1]
    return Call(verb, words, overrides, **options)


def program_parser() -> argparse.ArgumentParser:
    """Return the parser behind `bitnet-train --help`."""
    verbs = fold_named((verb.name, verb.summary) for verb in VERBS.values())
    more = fold(
        "`bitnet-train VERB --help` tells more. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 interrupted."
    )
    parser = _parser(
        "bitnet-train",
        "bitnet-train VERB [RECIPE or path] [key=value ...]",
        "Turn a pretrained causal LM into a true 1-bit model, keep it good, and prove the packed result.",
        f"verbs:\n{verbs}\n\nexample:\n  bitnet-train run quickstart\n\n{more}",
    )
    parser.add_argument("--version", action="version", version=f"bitnet-train {__version__}")
    return parser


def verb_parser(verb: Verb) -> argparse.ArgumentParser:
    """Return the parser behind `bitnet-train VERB --help`."""
    examples = "\n".join(fold_command(f"bitnet-train {example}") for example in verb.examples)
    word = f"[{verb.word}] " if verb.word else ""
    word += f"[{verb.text}] " if verb.text else ""
    parser = _parser(
        f"bitnet-train {verb.name}",
        f"bitnet-train {verb.name} {word}[key=value ...] [flags]",
        f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        f"examples:\n{examples}\n\n`bitnet-train show --keys` explains keys, `bitnet-train ls` lists choices.",
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help=f"{verb.word or 'nothing'}, then key=value words")
    parser.add_argument("--json", action="store_true", help="facts as one JSON document on stdout, the rest on stderr")
    parser.add_argument("--quiet", action="store_true", help="print nothing for people")
    if verb.dry_run:
        parser.add_argument("--dry-run", action="store_true", help=verb.dry_run)
    if verb.quick:
        parser.add_argument("--quick", action="store_true", help=verb.quick)
    if verb.beside:
        parser.add_argument("--beside", action="store_true", help=verb.beside)
    if verb.text:
        parser.add_argument(
            "-p", "--prompt", metavar=verb.text, help="the text to continue, as it stands; - = standard input"
        )
    if verb.name == "show":
        parser.add_argument("--keys", action="store_true", help="explain every key: default, choices, meaning")
    return parser


def _parser(name: str, usage: str, description: str, epilog: str) -> argparse.ArgumentParser:
    before = len("usage: ")
    return argparse.ArgumentParser(
        prog=name,
        usage=fold(usage, before).lstrip(),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=WIDTH),
        allow_abbrev=False,
        description=fold(description),
        epilog=epilog,
    )


def _read_flags(verb: Verb, arguments: list[str]) -> argparse.Namespace:
    """Read flags and words; a setting written as a flag, of ours or of another tool, is answered with its key."""
    parser = verb_parser(verb)
    flags, unknown = parser.parse_known_intermixed_args(arguments)
    for flag in (word for word in unknown if word.startswith("-")):  # words after an unknown flag are among them
        if flag in MULTIRUN_FLAGS:
            raise _multirun(flag)
        if others := _verbs_with(flag):
            raise ConfigError(f"`bitnet-train {verb.name}` has no `{flag}`; `{'` and `'.join(others)}` have it.")
        if hint := _key_of_flag(flag):
            raise ConfigError(
                f"`{flag}`:{hint} Settings are words without dashes: `bitnet-train {verb.name} KEY=VALUE`."
            )
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return flags


def _verbs_with(flag: str) -> list[str]:
    """Return the verbs that have a flag which not all have."""
    field = {"--dry-run": "dry_run", "--quick": "quick", "--beside": "beside"}.get(flag)
    return [] if field is None else [f"bitnet-train {verb.name}" for verb in VERBS.values() if getattr(verb, field)]


def _multirun(flag: str) -> ConfigError:
    from bitnet_train.config.words import MULTIRUN

    return ConfigError(f"`{flag}`: {MULTIRUN}")


def _key_of_flag(flag: str) -> str:
    from bitnet_train.config.foreign import foreign_hint
    from bitnet_train.config.words import full_key

    name = flag.lstrip("-").partition("=")[0].replace("-", "_")
    try:
        return f" That is the key `{full_key(name, name)}`."
    except ConfigError:
        return foreign_hint(name)


def _one_prompt(verb: Verb, flag: str | None, words: tuple[str, ...], overrides: tuple[str, ...]) -> str | None:
    as_key = [word for word in overrides if word.partition("=")[0] in ("prompt", "generate.prompt")]
    given = [*([] if flag is None else [flag]), *words, *as_key]
    if len(given) > 1:
        raise ConfigError(f"`bitnet-train {verb.name}` got its prompt twice: `{given[0]}` and `{given[1]}`. Drop one.")
    return flag if flag is not None else next(iter(words), None)


def _is_override(word: str) -> bool:
    return bool(_OVERRIDE.match(word)) and not is_there(word)


def _counted(verb: Verb, words: tuple[str, ...]) -> tuple[str, ...]:
    allowed = 2 if verb.name == "cp" or verb.text else 1 if verb.word else 0
    if len(words) > allowed and not verb.many:
        raise ConfigError(
            f"`bitnet-train {verb.name}` takes {verb.word or 'no words'} and key=value words, "
            f"not `{words[allowed]}`. A value with spaces is quoted as a whole: 'key=a value'."
        )
    return words
