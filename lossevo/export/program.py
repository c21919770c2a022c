"""``loss.pt2``: the loss as a ``torch.export`` program that runs, and is differentiable, where there is no lossevo.

The graph takes ``(logits, target)`` or ``(logits, target, distance_map)``, all (B, C, depth, height, width) with
C >= 2 and a one-hot target. Every size is dynamic, the arithmetic is done in float32 (float64 if the logits are),
and nothing is tied to a device. A graph has one number of dimensions: a 2D image is a volume of depth 1, to which every
formula gives the same value. Without lossevo::

    module = torch.export.load("loss.pt2").module()
    loss = torch.fx.GraphModule(module, copy.deepcopy(module.graph))  # or the parent network's train() and eval() raise
    loss(logits, one_hot_target).backward()  # 2D: loss(logits.unsqueeze(2), one_hot_target.unsqueeze(2))

What loading trusts: PyTorch unpickles parts of the archive, makes code of the guards in it and calls the operators that
it names. Whoever wrote the file can run code in the process that loads it: open files of people you trust only. From
others take the ``loss.json``, which also lies inside (``unzip -p loss.pt2 '*/loss.json' > loss.json``).
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes

from lossevo.documents import parse_json
from lossevo.errors import LossevoError
from lossevo.export.document import DOCUMENT_FILE, MAX_CHARACTERS, LossDocument, is_newer
from lossevo.expression import DISTANCE_SCALE_MM, Expression, compile_expression, generate
from lossevo.expression.neighbourhoods import margin
from lossevo.losses import LossInputs, SegmentationLoss
from lossevo.losses.definitions import Definition
from lossevo.losses.neural import LearnedLoss
from lossevo.losses.symbolic import EPOCHS

PROGRAM_FILE = "loss.pt2"
_NO_ARCHIVE = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, ValueError)
"""What Python raises when it reads a damaged archive."""
_INPUTS = ("logits", "target", "distance_map")


class _Formula(nn.Module):
    """What is exported: an expression on inputs in the canonical form of the call convention, without checks."""

    coefficients: Tensor
    progress: Tensor

    def __init__(self, expression: Expression) -> None:
        super().__init__()
        self._loss = compile_expression(expression)
        self._inputs = generate(expression.root).inputs
        self.uses_distance_map = "d" in expression.terminals
        self.register_buffer("coefficients", torch.tensor(expression.coefficients, dtype=torch.float64))
        if "t" in self._inputs:
            self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    def forward(self, logits: Tensor, target: Tensor, distance_map: Tensor | None = None) -> Tensor:
        logits = _checked(logits)
        values: dict[str, Tensor] = {}
        for name in self._inputs:
            match name:
                case "logp":
                    values[name] = torch.log_softmax(logits, dim=1)
                case "p":
                    values[name] = values["logp"].exp() if "logp" in values else torch.softmax(logits, dim=1)
                case "y":
                    values[name] = target.type_as(logits)
                case "d":
                    assert distance_map is not None
                    values[name] = (distance_map.type_as(logits) / DISTANCE_SCALE_MM).clamp(-1, 1)
                case "m":
                    values[name] = margin(logits)
                case "t":
                    values[name] = self.progress.type_as(logits)
        value = self._loss(values, self.coefficients.type_as(logits))
        assert isinstance(value, Tensor)  # it depends on the prediction
        return value


class _Network(LearnedLoss):
    """What is exported of a learned loss, likewise."""

    def forward(self, logits: Tensor, target: Tensor, distance_map: Tensor | None = None) -> Tensor:
        logits = _checked(logits)
        distance_map = None if distance_map is None else distance_map.type_as(logits)
        return self.compute(_AsGiven(logits, target.type_as(logits), distance_map))


class _AsGiven(LossInputs):
    @property
    def target(self) -> Tensor:
        return self.given_target


def _checked(logits: Tensor) -> Tensor:
    """The logits in the type that a loss is computed in."""
    # Held by a guard of the graph; the minimum of a Dim is not checked when it runs.
    torch._check(logits.shape[1] >= 2, lambda: "at least two classes")  # type: ignore[no-untyped-call]
    # A cast would write its dtype and device into the graph. Type promotion keeps float64 and raises all else to
    # float32; new_zeros follows the logits to their device, type_as in both.
    return logits + logits.new_zeros(1, dtype=torch.float32)


def export_program(definition: Definition) -> ExportedProgram:
    """The loss as an exported program with dynamic batch, classes and spatial size (3D)."""
    formula = _Formula(definition) if isinstance(definition, Expression) else _Network(definition)
    inputs = _INPUTS if formula.uses_distance_map else _INPUTS[:2]
    sizes = (Dim("batch", min=1), Dim("classes"), *(Dim(axis, min=1) for axis in ("depth", "height", "width")))
    example = tuple(torch.zeros(2, 3, 4, 5, 6) for _ in inputs)
    # Without it the graph assumes that no size is 1 and, when a formula leaves the background out, that C is not 2.
    with symbolic_shapes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(
            formula, example, dynamic_shapes={name: dict(enumerate(sizes)) for name in inputs}
        )
    for node in program.graph.nodes:
        assert node.kwargs.get("device") is None, f"{node.target} ties the graph to {node.kwargs['device']}"
        # Stack traces hold paths of the exporting machine.
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(key, None)
    return program


def save_program(document: LossDocument, path: Path) -> None:
    """Write the ``loss.pt2`` of a loss; the document travels inside."""
    torch.export.save(export_program(document.definition), path, extra_files={DOCUMENT_FILE: document.to_text()})


class ProgramLoss(SegmentationLoss):
    """A loaded ``loss.pt2`` with the call convention of all losses: labels or one-hot, 2D or 3D, one logit or several.

    The graph stands in for what :func:`~lossevo.losses.definitions.loss_of` makes: value and gradient are the same.
    """

    def __init__(self, program: ExportedProgram, *, spacing_mm: Sequence[float] | None = None) -> None:
        super().__init__(spacing_mm=spacing_mm)
        self.graph = _plain_module(program)
        self._run: Callable[..., Tensor] | None = None
        self.uses_distance_map = "distance_map" in program.graph_signature.user_inputs

    def compute(self, inputs: LossInputs) -> Tensor:
        """The graph's value, a scalar tensor."""
        arguments = [inputs.logits, inputs.target]
        if inputs.distance_map is not None:
            arguments.append(inputs.distance_map)
        if inputs.logits.ndim == 4:
            # The graph is 3D. A 2D image is a volume of depth 1: every sum and mean is the same.
            arguments = [argument.unsqueeze(2) for argument in arguments]
        value: Tensor = (self._run or self.graph)(*arguments)
        return value

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """``torch.compile`` the graph, in place; checks stay as they are. A copy or a pickled loss is not compiled."""
        self._run = torch.compile(self.graph.forward, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_run": None}  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Move the progress of the training on by a hundredth, if the formula knows it; it stays at 1."""
        progress = getattr(self.graph, "progress", None)
        if progress is not None:
            progress.copy_(((progress * EPOCHS).round() + 1).clamp(max=EPOCHS) / EPOCHS)


def _plain_module(program: ExportedProgram) -> torch.fx.GraphModule:
    """The program as an ordinary module: ``program.module()`` refuses train() and eval(), its guards refuse pickle."""
    module = program.module()
    graph = torch.fx.Graph()
    outputs = graph.graph_copy(module.graph, {})
    assert isinstance(outputs, tuple)
    graph.output(outputs[0])
    for node in reversed(graph.nodes):
        if node.op == "call_module":
            graph.erase_node(node)
    return torch.fx.GraphModule(module, graph)


def load_program(path: Path, *, spacing_mm: Sequence[float] | None = None) -> ProgramLoss:
    """Load a ``loss.pt2`` of a source you trust: PyTorch unpickles parts of it.

    Checksums and versions are looked at before, so that what is damaged or of another origin is not even opened.

    Raises:
        LossevoError: the file is damaged, not a lossevo loss, or from the future; the message names it.
    """
    document = _read_embedded_document(path)
    _refuse_pickles(path)
    try:
        with _quiet():
            program = torch.export.load(path)
        if tuple(program.graph_signature.user_inputs) not in (_INPUTS, _INPUTS[:2]):
            raise ValueError(f"inputs are {program.graph_signature.user_inputs}")
        return ProgramLoss(program, spacing_mm=spacing_mm)
    except LossevoError:
        raise
    except Exception as problem:
        version = document.metadata.get("torch", "of unknown version")
        way_out = f"load the {DOCUMENT_FILE} beside it, and export it again"
        raise LossevoError(
            f"PyTorch {torch.__version__} cannot load {path}, which PyTorch {version} wrote ({_first_line(problem)});"
            f" {'update PyTorch, or ' if is_newer(version, torch.__version__) else ''}{way_out}"
        ) from problem


def _read_embedded_document(path: Path) -> LossDocument:
    """The loss document inside the archive, read before anything is unpickled."""
    text = None
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            names = [name for name in archive.namelist() if name.endswith(f"/{DOCUMENT_FILE}")]
            if names and damaged is None:
                with archive.open(names[0]) as member:
                    text = member.read(4 * MAX_CHARACTERS + 1).decode()
    except OSError as problem:
        raise LossevoError(f"cannot read {path}: {problem.strerror or problem}") from None
    except _NO_ARCHIVE as problem:
        raise LossevoError(f"{path} is damaged or not a .pt2 file ({problem}); export the loss again") from None
    if damaged is not None:
        raise LossevoError(f"{path} is damaged ({damaged} does not have its checksum); export the loss again")
    if text is None:
        raise LossevoError(f"{path} is a program, but not one that lossevo exported: it holds no {DOCUMENT_FILE}")
    return LossDocument.from_text(text, source=f"{path}, {DOCUMENT_FILE} inside")


def _refuse_pickles(path: Path) -> None:
    """Refuse what PyTorch would unpickle, but for the example inputs, if they are tensors alone."""
    name = "archive"
    try:
        with zipfile.ZipFile(path) as archive, _quiet():
            for name in archive.namelist():
                folder, _, file = name.rpartition("/")
                if folder.endswith("/data/sample_inputs"):
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True, map_location="cpu")
                elif file.endswith("_config.json"):
                    tensors = parse_json(archive.read(name).decode(), source=name)["config"].values()
                    if any(tensor["use_pickle"] for tensor in tensors):
                        raise ValueError("pickled tensors")
    except Exception as problem:
        raise LossevoError(
            f"{path} is damaged, or not what lossevo exported: {type(problem).__name__} in its {name};"
            f" load the {DOCUMENT_FILE} beside it, and export it again"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch logs and warns of when it cannot read a file: the message says it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _first_line(problem: Exception) -> str:
    text = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]
    # PyTorch's log, which nobody sees.
    return text.replace("Please check the warnings above for possible errors.", "").strip()
