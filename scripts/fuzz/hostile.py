"""Names of code that a configuration must never build: what runs programs, imports, reads, writes, or calls up.

Among them are the ways around a list of allowed prefixes: modules that a logger imports, private and lower-case names,
names with dots, spaces and other alphabets, a target hidden in a list, a tuple, or under another object's arguments.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from bitnet_train.config import build_object
from bitnet_train.errors import ConfigError
from scripts.fuzz import watch
from scripts.fuzz.settings import called
from scripts.fuzz.targets import Attempt, Outcome

LOGGERS = "lightning.pytorch.loggers"
SOUND = f"{LOGGERS}.CSVLogger"
_COMMANDS = 8  # one in so many is named on the command line too, which composes a whole configuration
NAMES = (
    *("os.system", "os.popen", "os.execv", "os.execvp", "os.posix_spawn", "os.spawnl", "os.remove", "os.putenv"),
    *("posix.system", "nt.system", "pty.spawn", "subprocess.run", "subprocess.Popen", "subprocess.check_output"),
    *("subprocess.call", "shutil.rmtree", "shutil.move", "pathlib.Path.unlink", "pathlib.Path.write_text"),
    *("builtins.eval", "builtins.exec", "builtins.open", "builtins.compile", "builtins.__import__", "eval", "exec"),
    *("importlib.import_module", "importlib.reload", "runpy.run_path", "runpy.run_module", "code.interact"),
    *("pickle.loads", "pickle.load", "torch.load", "torch.hub.load", "torch.utils.cpp_extension.load", "joblib.load"),
    *("marshal.loads", "ctypes.CDLL", "ctypes.cdll.LoadLibrary", "cffi.FFI", "mmap.mmap", "socket.socket"),
    *("urllib.request.urlopen", "http.client.HTTPConnection", "requests.get", "ftplib.FTP", "smtplib.SMTP"),
    *("yaml.unsafe_load", "hydra.utils.instantiate", "hydra.utils.get_method", "hydra.utils.call", "site.main"),
    *("numpy.load", "pandas.read_pickle", "webbrowser.open", "antigravity", "timeit.timeit", "cProfile.run"),
    f"{LOGGERS}.csv_logs.os.system",
    f"{LOGGERS}.csv_logs.CSVLogger.save.__globals__",
    f"{LOGGERS}.CSVLogger.__init__.__globals__.get",
    f"{LOGGERS}.os.system",
    f"{LOGGERS}.__builtins__.eval",
    f"{LOGGERS}.logger.rank_zero_only",
    f"{LOGGERS}X.CSVLogger",
    f"{LOGGERS}.",
    f"{LOGGERS}..CSVLogger",
    f"{LOGGERS}.csvLogger",
    f" {SOUND}",
    f"{SOUND} ",
    f"{SOUND}\n",
    f"X.{SOUND}",
    "lightning.pytorch.cli.LightningCLI",
    "lightning.pytorch.loggers",
    "ｌightning.pytorch.loggers.CSVLogger",
    "",
)


def hostile_targets(work: Path) -> Attempt:
    """Name one in a configuration, on the command line and from Python, plainly and hidden in arguments."""

    def attempt(dice: random.Random, number: int) -> Outcome:
        name = NAMES[number % len(NAMES)]
        for spec in _specifications(name):
            with watch.audited() as events:
                _refused(spec)
            assert not watch.reached_out(events), f"{spec}: {watch.reached_out(events)}"
        if number % _COMMANDS == 0 and name.strip() != SOUND:  # a shell's words lose the spaces around them
            _refused_on_the_command_line(name, work)
        assert not list(work.iterdir()), f"{name} left {list(work.iterdir())}"
        return "refused"

    return attempt


def _specifications(name: str) -> list[dict[str, Any]]:
    hidden = {"_target_": name, "_args_": ["true"]}
    arguments = (hidden, [hidden], (hidden,), {"deep": [{"er": hidden}]}, ([hidden], 1), {"x": ({"y": [hidden]},)})
    return [hidden, *({"_target_": SOUND, "save_dir": ".", "name": argument} for argument in arguments)]


def _refused(spec: dict[str, Any]) -> None:
    try:
        made = build_object(spec, "logger.custom")
    except ConfigError:
        return
    raise AssertionError(f"{spec} was built: {made!r}")


def _refused_on_the_command_line(name: str, work: Path) -> None:
    words = ["show", "quickstart", "logger.kind=custom", f"logger.custom._target_={name}"]
    assert called(words, named=("logger.custom",), work=work) == "refused", f"{name} is taken"
