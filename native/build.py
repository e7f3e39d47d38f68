"""C to a shared library, where the machine has a C compiler. What was compiled is kept: the next start finds it by the hash of its source."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

TIMEOUT = 120.0  # [s]
NATIVE = "-march=native"  # compile for this processor


def library(source: str, flags: Sequence[str]) -> Path | None:
    """The library of this C source; None where there is no compiler, compiling it fails, or there is nowhere safe to keep it."""
    if (compiler := _compiler()) is None:
        return None
    target = _processor() if NATIVE in flags else platform.machine()
    name = hashlib.sha256("\n".join((source, *compiler, target, *flags)).encode()).hexdigest()[:32]
    try:
        path = _folder() / f"{name}.so"
        if not path.exists():
            _compile(source, compiler[0], flags, path)
    except (OSError, subprocess.SubprocessError, RuntimeError):  # the last from a user without a home folder
        return None
    return path


@cache
def _compiler() -> tuple[str, str] | None:
    """Its path and what it says of itself; None where there is none. $CC names another than cc."""
    if (path := shutil.which(os.environ.get("CC") or "cc")) is None:
        return None
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return path, said.stdout


@cache
def _processor() -> str:
    """What a library compiled for this processor alone is kept under: home folders are shared between machines, and moved."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    of_interest = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "Features")
    return "\n".join([platform.machine(), *sorted({x for x in lines if x.startswith(of_interest)})])


def _folder() -> Path:
    """Of libraries, nobody else's to write in: what lies there is run. Raises OSError."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sealegs"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = folder.stat()
    if seen.st_uid != os.getuid() or seen.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others")
    return folder


def _compile(source: str, compiler: str, flags: Sequence[str], path: Path) -> None:
    """Whoever compiles the same at the same time gets the same file. Raises OSError, SubprocessError."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        code, out = Path(scratch) / "code.c", Path(scratch) / "code.so"
        code.write_text(source)
        subprocess.run(
            [compiler, *flags, "-shared", "-fPIC", "-o", str(out), str(code), "-lm"],
            capture_output=True, check=True, timeout=TIMEOUT,
        )  # fmt: skip
        os.replace(out, path)
