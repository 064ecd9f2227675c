"""setuptools' build backend, with the requirements of compiling named only where it compiles.

A source distribution needs neither torch nor a compiler, and neither does a wheel without the
extension; listed in ``[build-system] requires``, torch would be installed for these too.
"""

from __future__ import annotations

import os
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  # the hooks that stay as they are

# The extension fits only the minor version of torch that it was compiled with.
COMPILING = ["cmake>=3.25", "ninja", "pybind11>=2.13", "torch>=2.11,<2.14"]
NO_EXTENSION = os.environ.get("VAEKERNELS_NO_EXTENSION", "0") not in ("", "0")


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What building a wheel needs."""
    requires = build_meta.get_requires_for_build_wheel(config_settings)
    return requires if NO_EXTENSION else [*requires, *COMPILING]


# An editable install compiles as a wheel does.
get_requires_for_build_editable = get_requires_for_build_wheel
