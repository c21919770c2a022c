"""Where a training stands, as bytes: tensors and plain values, and which training it is.

The bytes are a file of ``torch.save`` that ``torch.load(weights_only=True)`` reads: nothing is unpickled that could run
code. PyTorch does not look at the checksums of such a file, so they are checked here.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import torch

from lossevo.errors import LossevoError, shown

_FORMAT = "lossevo training state 1"


def pack(identity: Mapping[str, Any], content: Mapping[str, Any]) -> bytes:
    """The state ``content`` of the training that ``identity`` names, value by value."""
    file = BytesIO()
    torch.save({"format": _FORMAT, "identity": dict(identity), "content": dict(content)}, file)
    return file.getvalue()


def unpack(state: bytes, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The content of :func:`pack`, tensors on the CPU.

    Raises:
        LossevoError: the bytes are no such state, are damaged, or are the state of another training.
    """
    found = _read(state)
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise LossevoError(f"the state of a training is no '{_FORMAT}'; train again from the first step")
    theirs = found.get("identity")
    if not isinstance(theirs, dict) or not isinstance(found.get("content"), dict):
        raise damaged("identity or content is missing")
    for key, value in identity.items():
        if theirs.get(key) != value:
            raise LossevoError(
                f"the state is that of another training: {key}: found {shown(theirs.get(key))}, expected "
                f"{shown(value)}; give this training's own state, or train from the first step"
            )
    content: dict[str, Any] = found["content"]
    return content


def damaged(reason: object) -> LossevoError:
    """The error of a state that cannot be used."""
    told = " ".join(str(reason).split())
    return LossevoError(f"the state of a training is damaged ({shown(told, 120)}); train again from the first step")


def _read(state: bytes) -> Any:
    try:
        with zipfile.ZipFile(BytesIO(state)) as archive:
            broken = archive.testzip()
        if broken:
            raise damaged(f"checksum of {broken}")
        return torch.load(BytesIO(state), map_location="cpu", weights_only=True)
    except LossevoError:
        raise
    except Exception as problem:  # whatever zipfile and PyTorch say of bytes that are no such file
        raise damaged(problem) from problem
