"""Named tensors on disk, written whole: what a killed run leaves is the old file, or the new one, or none."""

import errno
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def write(path: Path, tensors: Mapping[str, Tensor], header: Any) -> None:
    """Replaces what is there. header: JSON-able. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    _write(temporary, tensors, header)
    os.replace(temporary, path)


def write_next(folder: Path, name: str, tensors: Mapping[str, Tensor], header: Any) -> Path:
    """As NAME-00000.safetensors, or the next number: nothing that is there is written over, whoever else adds to the folder. -> its path.

    Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    # What a killed process left behind is removed by the next.
    for left in folder.glob(partial(name, "*")):
        if not _runs(int(left.suffixes[-2][1:])):
            left.unlink(missing_ok=True)
    temporary = folder / partial(name, os.getpid())
    _write(temporary, tensors, header)
    while True:
        taken = [int(p.stem.removeprefix(f"{name}-")) for p in folder.glob(f"{name}-*.safetensors")]
        path = folder / f"{name}-{max(taken, default=-1) + 1:05d}.safetensors"
        try:
            os.link(temporary, path)  # a rename would replace what another has written since
        except FileExistsError:
            continue
        except OSError as e:
            if e.errno not in NO_LINKS or path.exists():
                raise
            os.replace(temporary, path)  # a file system without links
            return path
        temporary.unlink()
        return path


def partial(name: str, process: int | str) -> str:
    """A name of its own for every process, on whichever machine."""
    host = re.sub(r"[^\w-]", "-", platform.node())
    return f"{name}.{host}.{process}.partial"


def _write(path: Path, tensors: Mapping[str, Tensor], header: Any) -> None:
    try:
        save_file({n: w.contiguous() for n, w in tensors.items()}, path, {"sealegs": json.dumps(header)})
        with open(path, "rb+") as f:
            os.fsync(f.fileno())
    except (SafetensorError, OSError) as e:
        path.unlink(missing_ok=True)  # of a full disk: half a file helps nobody
        if isinstance(e, OSError):
            raise
        # The library says the system's error in words alone.
        found = re.search(r"os error (\d+)", str(e))
        code = int(found[1]) if found else errno.EIO
        raise OSError(code, os.strerror(code) if found else str(e), str(path)) from e


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True
