"""CasADi functions as machine code, where the machine has a C compiler.

CasADi evaluates a function in a virtual machine of its own; the C that it generates, compiled, gives the same bits (no contraction to fused
operations, no fast maths) in a twentieth of the time.
"""

import casadi

from native.build import library

FLAGS = ("-Og", "-ffp-contract=off")  # -O1 and -O2 compile twice and thrice as long, to no quicker code
WORTH = 2000  # instructions; below it the virtual machine takes no time that shows


def compiled(function: casadi.Function) -> casadi.Function:
    """The function as machine code; itself where it is small, where there is no compiler, or where compiling it fails."""
    if not function.is_a("SXFunction") or function.n_instructions() < WORTH:
        return function
    generator = casadi.CodeGenerator(f"{function.name()}.c")
    generator.add(function)
    if (path := library(generator.dump(), FLAGS)) is None:
        return function
    try:
        return casadi.external(function.name(), str(path))
    except RuntimeError:
        return function
