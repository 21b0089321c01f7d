"""What muster needs: ``[tool.muster]`` of pyproject.toml, and the client library of the same version.

A source tree names its own ``tools/client``, so ``pip install .`` takes that one and asks no index for it. A
distribution (it has PKG-INFO) names the version that is built and released with it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent


def needed() -> list[str]:
    """Requirements, as the metadata have them."""
    told = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))
    released = (HERE / "PKG-INFO").exists()
    client = f"=={told['project']['version']}" if released else f" @ {(HERE / 'tools' / 'client').as_uri()}"
    return [f"muster-client{client}", *told["tool"]["muster"]["dependencies"]]


setup(install_requires=needed())
