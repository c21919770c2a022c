"""``loss.py``: the loss as a readable module of its own that needs PyTorch and nothing else.

The formula is written by :mod:`lossevo.export.body`. The functions that it calls, and the checks of the call
convention, are copied from lossevo's own source: each is written in one place. The first line is a checksum of the
others, by which :func:`lossevo.load` tells a damaged file.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from types import CodeType, FunctionType

from lossevo.errors import LossevoError
from lossevo.export.body import Body, body_of
from lossevo.export.document import DOCUMENT_FILE, FORMAT, LossDocument
from lossevo.losses import base
from lossevo.losses.symbolic import EPOCHS

SOURCE_FILE = "loss.py"
CLASS_NAME = "EvolvedLoss"
_DOCSTRING_WIDTH = 100
_WIDEST_KEY = 24
_CHECKSUM = re.compile("# sha256 of the lines below: ([0-9a-f]{64})")


def source_of(document: LossDocument) -> str:
    """The text of ``loss.py``."""
    body = body_of(document.definition)
    keeping = [base.keeping_dtype] if body.buffers else []
    maps = [base.check_distance_map] if body.uses_distance_map else []
    constants, functions = _copied([base.check_shapes, base.check_target, *maps, *keeping, *body.called])
    blocks = [_class(body), body.code, *functions]
    imports = "import torch\nfrom torch import Tensor, nn"
    kinds = [kind for kind in ("Callable", "Sequence") if any(f"{kind}[" in block for block in blocks)]
    if kinds:
        imports = f"from collections.abc import {', '.join(kinds)}\n\n{imports}"
    head = [_docstring(document, body), "from __future__ import annotations", imports]
    if constants:
        head.append("\n".join(f"{name} = {value!r}" for name, value in constants.items()))
    text = "\n\n\n".join(["\n\n".join(head), *blocks, *body.numbers]) + "\n"
    return f"# sha256 of the lines below: {_checksum(text)}\n{text}"


def check_intact(source: str, *, name: str) -> None:
    """Raise LossevoError if the first line is a checksum, and not that of the lines below."""
    first, _, text = source.partition("\n")
    found = _CHECKSUM.fullmatch(first.rstrip())
    if found and found.group(1) != _checksum(text):
        raise LossevoError(
            f"{name} is not what lossevo wrote: its checksum differs. If it was damaged, export the loss again;"
            " if you changed it on purpose, remove its first line"
        )


def _checksum(text: str) -> str:
    # Of lines, however a version control system ends them.
    return sha256("\n".join(text.splitlines()).encode()).hexdigest()


# --- docstring ---


def _docstring(document: LossDocument, body: Body) -> str:
    """Formula, meaning of its symbols, provenance and use."""
    metadata, uses_distance = document.metadata, body.uses_distance_map
    call_convention = [
        ("logits", "(B, C, *spatial), 2D or 3D; C >= 2 is a softmax, C = 1 a sigmoid"),
        ("target", "labels (B, 1, *spatial), or one-hot or soft (B, C, *spatial)"),
        (
            "distance_map",
            "(B, C, *spatial), signed distance to each class's boundary in mm, negative inside; computed from the"
            " target if not given, but a map of the whole volume is better than one of a patch"
            if uses_distance
            else "accepted, and not used by this loss",
        ),
    ]
    if not body.takes_soft_labels:
        call_convention[1] = ("target", f"{call_convention[1][1]}; {_SOFT_LABELS}")
    name = metadata.get("name", metadata.get("id", "A loss"))
    provenance = (
        (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for key, value in metadata.items()
        if not isinstance(value, dict)
    )
    lines = [
        *_wrapped(f"{name}: a segmentation loss found by lossevo."),
        "",
        *_wrapped(f"    L = {body.formula}", indent="        "),
        "",
        *_table(body.legend),
        "",
        f"{body.remark}Where it comes from ({DOCUMENT_FILE} says more):",
        "",
        *_table([("format", FORMAT), *provenance]),
        "",
        "Needs PyTorch alone::",
        "",
        f"    loss = {CLASS_NAME}({'spacing_mm=(4.0, 1.0, 1.0)' if uses_distance else ''})",
        "    loss(logits, target, distance_map).backward()" if uses_distance else "    loss(logits, target).backward()",
        "",
        *_table(call_convention),
        "",
        "The result is a scalar, computed in float32 (float64 if the logits are) even under autocast.",
    ]
    return f'"""{_escaped(lines)}\n"""'


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = min(_WIDEST_KEY, max(len(key) for key, _ in rows)) + 3
    return [line for key, value in rows for line in _wrapped(f"{key:<{width}}{value}", indent=" " * width)]


def _wrapped(line: str, *, indent: str = "") -> list[str]:
    return textwrap.wrap(line, _DOCSTRING_WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _escaped(lines: Iterable[str]) -> str:
    """Lines that cannot end the docstring they stand in, nor hide anything, whatever the metadata hold."""
    printable = ("".join(sign if sign.isprintable() else " " for sign in line).rstrip() for line in lines)
    return "\n".join(printable).replace("\\", "\\\\").replace('"""', r"\"\"\"")


# --- class ---

_SOFT_LABELS = "with soft labels this loss is not smallest, or not only, where the prediction equals them"

_FORWARD = '''\
    def forward(self, logits: Tensor, target: Tensor, distance_map: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        check_shapes(logits, target, distance_map)
        if not torch.compiler.is_compiling():  # reading values back would break the graph
            check_target(target, logits.shape[1])
            logits, target = logits.as_subclass(Tensor), target.as_subclass(Tensor)  # MONAI gives a subclass
        with torch.autocast(device_type=logits.device.type, enabled=False):
            logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
            if logits.shape[1] == 1:
                logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
                if target.is_floating_point() and target.shape[1] == 1:
                    target = target.to(logits.dtype)
                    target = torch.cat([1 - target, target], dim=1)'''

_DISTANCE_MAP = """\
            if distance_map is None:
                spacing_mm = self.spacing_mm or (1.0,) * (logits.ndim - 2)
                distance_map = signed_distance_in_torch(one_hot(target, logits.shape[1]), spacing_mm)
            elif distance_map.shape[1] == 1 and logits.shape[1] == 2:
                distance_map = torch.cat([-distance_map, distance_map], dim=1)
            if not torch.compiler.is_compiling():
                distance_map = distance_map.as_subclass(Tensor)
            check_distance_map(distance_map, logits)"""


_APPLY = f"""
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> {CLASS_NAME}:
        # half() or to(bfloat16) of a network that holds the loss must not round the loss's numbers.
        return super()._apply(keeping_dtype(fn), recurse)"""

_STEP = f"""
    def step(self) -> None:
        \"\"\"Move the training's progress t on by a hundredth, up to 1: call it {EPOCHS} times in a training.\"\"\"
        self.progress.copy_(((self.progress * {EPOCHS}).round() + 1).clamp(max={EPOCHS}) / {EPOCHS})"""


def _class(body: Body) -> str:
    """The module: checks, brings the arguments to their canonical form, calls the formula."""
    lines = [
        f"class {CLASS_NAME}(nn.Module):",
        '    """The loss described at the top of this file."""',
        "",
        f"    uses_distance_map = {body.uses_distance_map}",
        *(f"    {name}: Tensor" for name in body.buffers),
    ]
    if body.buffers or body.uses_distance_map:
        arguments = "self, *, spacing_mm: Sequence[float] | None = None" if body.uses_distance_map else "self"
        lines += ["", f"    def __init__({arguments}) -> None:", "        super().__init__()"]
    lines += ["        self.spacing_mm = spacing_mm"] if body.uses_distance_map else []
    lines += [line for registered in body.buffers.values() for line in registered]
    lines += ["", _FORWARD]
    lines += [_DISTANCE_MAP] if body.uses_distance_map else []
    lines += [f"            {name} = {read}" for name, read in body.reads.items()]
    lines += [f"            return formula({', '.join(body.arguments)})"]
    lines += [_STEP] if body.changes else []
    lines += [_APPLY] if body.buffers else []
    return "\n".join(lines)


# --- what the formula and the class call ---


def _copied(called: Iterable[Callable[..., object]]) -> tuple[dict[str, float], list[str]]:
    """The source of the functions ``called`` and of every lossevo function they call, and the constants they read."""
    constants: dict[str, float] = {}
    sources: dict[str, str] = {}
    pending = list(called)
    while pending:
        function: FunctionType = inspect.unwrap(pending.pop(0))
        if function.__name__ in sources:
            continue
        # Who uses the file has no LossevoError.
        sources[function.__name__] = inspect.getsource(function).strip().replace("LossevoError", "ValueError")
        for name in _global_names(function.__code__):
            value = function.__globals__.get(name)
            if isinstance(value, int | float):
                constants[name] = value
            elif inspect.isfunction(value) and value.__module__.startswith("lossevo."):
                pending.append(value)
    return constants, list(sources.values())


def _global_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)
