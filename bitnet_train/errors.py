"""The errors this package raises for people.

Each message says what failed, what was given, what is allowed, and what to do next, with configuration keys in
backticks. A programmer's mistake is an `assert`, not one of these.
"""

from __future__ import annotations


class BitnetTrainError(Exception):
    """Base of every error that is meant to be read by a user."""


class ConfigError(BitnetTrainError, ValueError):
    """A configuration key, value or command line is wrong; nothing has been loaded yet."""


class DataError(BitnetTrainError):
    """Training or evaluation data is missing, empty, or has nothing to learn from."""


class ConversionError(BitnetTrainError):
    """A model cannot be converted, adapted or merged as asked; the model is unchanged."""


class FormatError(BitnetTrainError):
    """A file or a packed tensor is damaged, truncated, or written by a newer version."""


class KernelError(BitnetTrainError):
    """A kernel was given arrays it cannot take, or an instruction set this CPU lacks."""


class ParityError(BitnetTrainError):
    """Two computations that must agree do not."""


class TrainingError(BitnetTrainError):
    """Training cannot go on: a non-finite loss, or a checkpoint that cannot be used."""


class DiskError(BitnetTrainError):
    """A file or folder cannot be written: the disk is full, read-only or not permitted. What was there is as it was."""


class RunInUseError(BitnetTrainError):
    """Another process writes in the run directory."""
