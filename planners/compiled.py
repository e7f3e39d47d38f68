"""CasADi functions as machine code, where the machine has a C compiler.

CasADi evaluates a function in a virtual machine of its own; the C that it generates, compiled, gives the same bits (no contraction to fused
operations, no fast maths) in a twentieth of the time. What was compiled is kept: the next start finds it by the hash of its source.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import casadi

FLAGS = (
    "-shared",
    "-fPIC",
    "-Og",
    "-ffp-contract=off",
)  # -O1 and -O2 compile twice and thrice as long, to no quicker code
WORTH = 2000  # instructions; below it the virtual machine takes no time that shows
TIMEOUT = 120.0  # [s]


def compiled(function: casadi.Function) -> casadi.Function:
    """The function as machine code; itself where it is small, where there is no compiler, or where compiling it fails."""
    if not function.is_a("SXFunction") or function.n_instructions() < WORTH or (compiler := _compiler()) is None:
        return function
    generator = casadi.CodeGenerator(f"{function.name()}.c")
    generator.add(function)
    source = generator.dump()
    name = hashlib.sha256("\n".join((source, *compiler, *FLAGS)).encode()).hexdigest()[:32]
    try:
        folder = _folder()
        library = folder / f"{name}.so"
        if not library.exists():
            _compile(source, compiler[0], library)
        return casadi.external(function.name(), str(library))
    except (OSError, subprocess.SubprocessError, RuntimeError):
        return function


@cache
def _compiler() -> tuple[str, str, str] | None:
    """Its path, what it says of itself, and the machine it compiles for; None where there is none. $CC names another than cc."""
    if (path := shutil.which(os.environ.get("CC") or "cc")) is None:
        return None
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return path, said.stdout, platform.machine()


def _folder() -> Path:
    """Of libraries, nobody else's to write in: what lies there is run. Raises OSError."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sealegs"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = folder.stat()
    if seen.st_uid != os.getuid() or seen.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others")
    return folder


def _compile(source: str, compiler: str, library: Path) -> None:
    """Whoever compiles the same at the same time gets the same file. Raises OSError, SubprocessError."""
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        code, out = Path(scratch) / "code.c", Path(scratch) / "code.so"
        code.write_text(source)
        subprocess.run(
            [compiler, *FLAGS, "-o", str(out), str(code), "-lm"], capture_output=True, check=True, timeout=TIMEOUT
        )
        os.replace(out, library)
