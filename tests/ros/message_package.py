"""A package of one message, built from its definition by ROS 2's own generators: of some packages there is no wheel.

What `rosidl_generate_interfaces` does in CMake, for Python and Fast DDS alone, in two seconds.
"""

import shutil
import subprocess
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

# Fast DDS's, and the one by which it describes the type to others. One alone does not do.
SUPPORT = "rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c"
GENERATORS = "rosidl_adapter", "rosidl_generator_c", "rosidl_generator_py", "rosidl_generator_type_description"


def missing() -> str:
    """What it lacks here, in words; empty: nothing."""
    wanted = [name for name in (*GENERATORS, "rosidl_typesupport_c", *SUPPORT) if find_spec(name) is None]
    wanted += [] if shutil.which("g++") else ["g++"]
    header = Path(sysconfig.get_path("include"), "Python.h")
    return ", ".join([*wanted, *([] if header.is_file() else [str(header)])])


def build(folder: Path, name: str, definition: str, uses: tuple[str, ...]) -> None:
    """name: as in `std_msgs/msg/Header`; uses: the packages whose messages are in it. The folder is then one for PYTHONPATH. AMENT_PREFIX_PATH
    is to be set."""
    from ament_index_python import get_package_prefix
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py.cli import GeneratePython
    from rosidl_generator_type_description.cli import HashTypeDescription
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport
    from rosidl_typesupport_introspection_c.cli import GenerateIntrospectionCTypesupport

    package, _, kind = name.split("/")
    prefix, root = Path(get_package_prefix("std_msgs")), folder / package
    file = root / "msg" / f"{kind}.msg"
    file.parent.mkdir(parents=True)
    file.write_text(definition)
    (root / "__init__.py").touch()
    convert_msg_to_idl(root, package, file.relative_to(root), file.parent)
    what = package, [f"{root}:msg/{kind}.idl"], [str(prefix / "share")]
    # By class: where the generators are installed as wheels, `rosidl generate` finds each of them twice and refuses.
    hashes = HashTypeDescription("hash").generate_type_hashes(*what, root)

    def sources(generator: Any, into: Path = root, **more: Any) -> list[str]:
        made = generator.generate(*what, into, **more)
        return [f for f in map(str, made) if f.endswith((".c", ".cpp"))]

    message = sources(GenerateC("c"), type_description_files=hashes)
    message += sources(GenerateFastRTPSCTypesupport("fast"))
    apart = folder / "introspection"  # it has a file of the name of one above
    introspection = sources(GenerateIntrospectionCTypesupport("introspection"), apart / package)
    python = sources(GeneratePython("py", typesupport_implementations=["rosidl_typesupport_c"]))
    python += sources(GenerateCTypesupport("support", typesupport_implementations=list(SUPPORT)))

    places = [folder, apart, sysconfig.get_path("include"), np.get_include(), prefix / "include"]
    places += [p for p in (prefix / "include").iterdir() if (p / p.name).is_dir()]
    libraries = [
        *(f"{p}__{x}" for p in uses for x in (*SUPPORT, "rosidl_generator_c", "rosidl_generator_py")),
        "rosidl_runtime_c", "rosidl_typesupport_c", *SUPPORT, "rosidl_typesupport_fastrtps_cpp", "rcutils", "fastcdr",
    ]  # fmt: skip
    own = [f"lib{package}__{x}.so" for x in SUPPORT]

    def link(library: str, files: list[str], *needed: str) -> None:
        """A library that finds those it needs beside it; they are loaded with it, also where nothing of them is called by name."""
        inputs = [x for f in files for x in ("-x", "c" if f.endswith(".c") else "c++", f)]
        subprocess.run(
            ["g++", "-shared", "-fPIC", "-w", *(f"-I{p}" for p in places), *inputs, "-x", "none",
             "-o", str(root / library), f"-Wl,-soname,{library},-rpath,$ORIGIN,--no-as-needed", f"-L{root}", f"-L{prefix / 'lib'}",
             *(f"-l:{x}" for x in needed), *(f"-l{x}" for x in libraries), "-Wl,--allow-shlib-undefined"],
            check=True,
        )  # fmt: skip

    link(own[0], message)
    link(own[1], introspection, own[0])
    link(f"{package}_s__rosidl_typesupport_c.so", python, *own)
