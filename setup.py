"""What pyproject.toml cannot say: the compiled modules, which may fail to build.

Where there is no compiler the package is installed without them and runs its Python twins;
`cartridge-warp doctor` says which of the two is at work.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# -g0: with debugging symbols, which Python's own flags ask for, a module is ten times the size.
FLAGS = os.environ.get("CARTRIDGE_WARP_CFLAGS", "-O3 -g0").split()
SOURCES = sorted(path.as_posix() for path in Path("warp/native").glob("*.pyx"))


def compiled() -> list[Extension]:
    """One extension for each .pyx file; none for a build that asks for plain Python."""
    if os.environ.get("CARTRIDGE_WARP_PURE", "") not in ("", "0"):
        return []
    made: list[Extension] = cythonize(
        [
            Extension(
                path.removesuffix(".pyx").replace("/", "."),
                [path],
                extra_compile_args=FLAGS,
                extra_link_args=[flag for flag in FLAGS if flag.startswith("-fsanitize")],
            )
            for path in SOURCES
        ],
        language_level=3,
    )
    for extension in made:
        extension.optional = True  # cythonize() forgets it
    return made


setup(ext_modules=compiled())
