"""What a disk refuses is one error, `DiskError`: full, read-only, not permitted, over a quota, beyond a size limit.

    with writing(target):                       what fails in here names `target`, and the bytes that are free
        with needing(weights.nbytes):           what fails in here knows how many bytes it needed, too
            save_file(...)

Libraries say it in their own words: safetensors and tokenizers as text that ends in `(os error 28)`, torch as the
position of a stream, with the system's error behind it. An error of another file, such as one that is read meanwhile,
passes as it is.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bitnet_train.errors import BitnetTrainError, DiskError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_IN_THE_WAY = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, *_IN_THE_WAY})
_IN_TEXT = re.compile(r"\(os error (\d+)\)")
_NEEDED = "needed_bytes"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise DiskError, which names `path`, for what the disk refuses while it, or what lies in it, is written."""
    try:
        yield
    except BitnetTrainError:
        raise
    except Exception as error:
        number = _refusal(error, path)
        if number is None:
            raise
        raise DiskError(_told(path, number, _needed(error))) from error


@contextmanager
def needing(num_bytes: int) -> Iterator[None]:
    """Let an error that passes know how many bytes were to be written."""
    try:
        yield
    except Exception as error:
        if _needed(error) is None:
            with suppress(AttributeError):
                setattr(error, _NEEDED, num_bytes)
        raise


def check_writable(path: Path) -> None:
    """Raise DiskError where a file or folder that is there may not be written, as far as that can be asked."""
    mode = os.W_OK | (os.X_OK if path.is_dir() else 0)
    if path.exists() and not os.access(path, mode, effective_ids=os.access in os.supports_effective_ids):
        number = errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES
        raise DiskError(_told(path, number, None))


def free_bytes(path: Path) -> int:
    """Return the bytes that are free where `path` is, or would be."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def _refusal(error: BaseException, path: Path) -> int | None:
    """Return the system's number for what it refused, None where the disk refused nothing of `path`."""
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno is not None:
            about = each.filename2 or each.filename
            return each.errno if _is_of_disk(each.errno) and _is_about(about, path) else None
        if (match := _IN_TEXT.search(str(each))) is not None and _is_of_disk(int(match[1])):
            return int(match[1])
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_disk(number: int) -> bool:
    return number in _FULL or number in _REFUSED


def _is_about(named: object, path: Path) -> bool:
    """Whether an error names `path`, its draft, what is in either, what it lies in, or nothing."""
    if not isinstance(named, str | bytes | os.PathLike):
        return True
    found, own = Path(os.fsdecode(named)).absolute(), path.absolute()
    if own.is_relative_to(found) or found.is_relative_to(own):
        return True
    beside = found.relative_to(own.parent).parts if found.is_relative_to(own.parent) else ("",)
    return beside[0].startswith(f".{own.name}.")


def _needed(error: BaseException) -> int | None:
    return next((getattr(each, _NEEDED) for each in _chain(error) if hasattr(each, _NEEDED)), None)


def _told(path: Path, number: int, needed: int | None) -> str:
    if number not in _FULL:
        return f"{path} cannot be written: {os.strerror(number)}. Make it writable, or choose another folder."
    wanted = "" if needed is None else f"{needed:,} bytes are needed, and "
    return (
        f"{path} cannot be written: {os.strerror(number)}; {wanted}{free_bytes(path):,} bytes are free there. What was "
        "there before is as it was. Make room, then do it again."
    )
