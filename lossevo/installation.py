"""What is installed here, as far as results depend on it: the code of lossevo, and the libraries that compute."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

_LIBRARIES = ("torch", "numpy", "monai", "scipy", "nibabel")


@cache
def code_hash(part: str = "") -> str:
    """Twelve hexadecimal digits of the sha256 over the source files of the package: their names and bytes. ``part``
    names a folder of it.
    """
    package = Path(__file__).parent / part
    digest = hashlib.sha256()
    # Editors mark a file in use by a link that leads nowhere.
    for file in sorted(path for path in package.rglob("*.py") if path.is_file()):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(package).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


@cache
def installation() -> Mapping[str, str]:
    """Package -> version. lossevo's is its code hash; a library's is its public version, the same for CPU and GPU."""
    versions = {"lossevo": f"code {code_hash()}"}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library).partition("+")[0]
        except metadata.PackageNotFoundError:
            versions[library] = "not installed"
    return MappingProxyType(versions)
