"""Packages that bring losses, as pip would install them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, losses: Mapping[str, str], code: str, *, name: str = "their-losses", version: str = "1.2"):
    """Write a distribution with the module ``NAME`` (with underscores) and entry points into ``folder``."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    record = folder / f"{module}-{version}.dist-info"
    record.mkdir(parents=True, exist_ok=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = [f"{loss} = {target}" for loss, target in losses.items()]
    (record / "entry_points.txt").write_text("[lossevo.losses]\n" + "\n".join(lines) + "\n", encoding="utf-8")
