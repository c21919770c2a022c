"""loss.py: equals the candidate bit for bit, is tidy, and means what it says whatever the metadata hold."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import lossevo
from lossevo.export.document import document_of
from lossevo.export.source import source_of
from lossevo.export.verification import deviations, expected_cases
from lossevo.expression import COEFFICIENT, PRIMITIVES, TERMINALS, Expression, Kind, Node, constant
from lossevo.losses import expression_of
from lossevo.losses.neural import ACTIVATIONS, INPUTS, MAX_LAYERS, MAX_UNITS
from tests.networks import CROSS_ENTROPY, random_network


def _loss_of(source: str, **arguments: object) -> nn.Module:
    namespace: dict[str, object] = {}
    exec(compile(source, "loss.py", "exec"), namespace)
    return namespace["EvolvedLoss"](**arguments)


def _random_node(rng: random.Random, kind: Kind, depth: int, values: list[float]) -> Node:
    leaves = [terminal.name for terminal in TERMINALS.values() if terminal.kind is kind]
    if depth <= 1 and leaves and (kind is not Kind.SCALAR or rng.random() < 0.2):
        return Node(rng.choice(leaves))
    if depth <= 1 and kind is Kind.SCALAR:
        if rng.random() < 0.5:
            return constant(rng.randint(-3, 3))
        values.append(rng.uniform(-2, 2))
        return Node(COEFFICIENT, value=len(values) - 1)
    makers = [primitive for primitive in PRIMITIVES.values() if primitive.target is kind]
    if makers and rng.random() < 0.4:
        primitive = rng.choice(makers)
        return Node(primitive.name, (_random_node(rng, primitive.source, depth - 1, values),))
    primitive = rng.choice([primitive for primitive in PRIMITIVES.values() if primitive.elementwise])
    kinds = [kind, *(Kind(rng.randint(0, kind)) for _ in range(primitive.arity - primitive.parameters - 1))]
    rng.shuffle(kinds)
    kinds += [Kind.SCALAR] * primitive.parameters
    return Node(primitive.name, tuple(_random_node(rng, operand, depth - 1, values) for operand in kinds))


def _random_expression(rng: random.Random) -> Expression:
    while True:
        values: list[float] = []
        expression = Expression.of(_random_node(rng, Kind.SCALAR, rng.randint(4, 9), values), values)
        if expression.terminals & {"p", "logp", "m"} and expression.root.size < 120:
            return expression


@pytest.mark.parametrize("seed", range(8))
def test_source_of_random_expressions_is_bit_equal_and_short_lined(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(5):
        expression = _random_expression(rng)
        source = source_of(document_of(expression, {}))
        own = source[source.index("class EvolvedLoss") : source.index("def check_shapes")]
        assert max(map(len, own.splitlines())) <= 120
        loss = _loss_of(source)
        for found in deviations(loss, expected_cases(expression)):
            assert (found.worst_case, found.value, found.gradient) == (found.worst_case, 0, 0)


def test_formula_reads_like_written_by_hand() -> None:
    source = source_of(document_of(expression_of("tversky"), {"name": "winner 7"}))
    assert (
        """\
def formula(p: Tensor, y: Tensor, c: Tensor) -> Tensor:
    \"\"\"L from maps (B, C, *spatial) and the coefficients c.\"\"\"
    spatial = tuple(range(2, p.ndim))
    v0 = (p * y).sum(spatial)
    v1 = v0 / guard(v0 + c[0] * (p * (1.0 - y)).sum(spatial) + c[1] * (y * (1.0 - p)).sum(spatial))
    return 1.0 - v1[:, 1:].mean()
"""
        in source
    )


def test_a_network_reads_like_written_by_hand() -> None:
    source = source_of(document_of(CROSS_ENTROPY, {"name": "winner 7"}))
    for expected in (
        """\
            y = one_hot(target, logits.shape[1]).to(logits.dtype)
            m = log_odds(logits)
            g = 2 * y - 1
            return formula(m, g, [layer.to(logits) for layer in self.buffers()])
""",
        '''\
def formula(m: Tensor, g: Tensor, layers: Sequence[Tensor]) -> Tensor:
    """L from maps (B, C, *spatial) and the layers of the network; every voxel of a map is a column."""
    values = torch.stack([m, g])[:, :, 1:].flatten(1)  # without the background
    for layer in layers[:-1]:
        values = torch.relu(layer @ values)
    return nn.functional.softplus(layers[-1] @ values).mean()
''',
        """\
LAYER_1 = (
    (1.0, -20.0),
    (-1.0, 20.0),
    (1.0, 20.0),
    (-1.0, -20.0),
)


LAYER_2 = (
    (0.5, 0.5, -0.5, -0.5),
)
""",
    ):
        assert expected in source
    docstring = ast.get_docstring(ast.parse(source))
    assert docstring is not None
    for expected in (
        "winner 7: a segmentation loss found by lossevo",
        "L = mean(softplus(network(margin, target))), 2-4-1 relu without biases",
        "m   margin: x_c - log Σ_{k≠c} exp x_k",
        "g   target: 2 g - 1",
    ):
        assert expected in docstring


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("inputs", [("margin", "target"), ("target", "frequency", "probability"), tuple(INPUTS)])
def test_source_of_networks_is_bit_equal(activation: str, inputs: tuple[str, ...]) -> None:
    network = random_network(inputs, activation=activation)
    loss = _loss_of(source_of(document_of(network, {})))
    for found in deviations(loss, expected_cases(network)):
        assert (found.worst_case, found.value, found.gradient) == (found.worst_case, 0, 0)


def test_only_what_is_used_is_in_the_file() -> None:
    tversky, boundary = (source_of(document_of(expression_of(name), {})) for name in ("tversky", "boundary"))
    assert "guard" in tversky
    assert "signed_distance_in_torch" not in tversky
    assert "spacing_mm" not in tversky
    assert "guard" not in boundary
    assert "signed_distance_in_torch" in boundary
    for source in (tversky, boundary):
        imported = {
            node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert imported <= {"__future__", "collections.abc", "torch"}
        assert "LossevoError" not in source


@pytest.mark.parametrize("name", ["tversky", "boundary", "baikal_cma", "largest network"])
def test_source_is_tidy(tmp_path: Path, name: str) -> None:
    pytest.importorskip("ruff")
    path = tmp_path / "loss.py"
    largest = random_network(hidden=(MAX_UNITS,) * (MAX_LAYERS - 1))
    definition = largest if name == "largest network" else expression_of(name)
    path.write_text(source_of(document_of(definition, {"name": name, "seeds": list(range(40))})), "utf-8")
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=120", "--select=E,F,W,I,UP,B,SIM,RET"]
    result = subprocess.run([*ruff, str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "text",
    ['"""', 'x"', "\\", '\\"""\nimport os', "a\u202eb\x00\x1b[2J", "\\N{BULLET}", "word " * 500, "x" * 5000, ""],
)
def test_metadata_cannot_leave_the_docstring(text: str) -> None:
    source = source_of(document_of(expression_of("tversky"), {"name": text, text: text, "nested": {text: [text]}}))
    body = ast.parse(source).body
    kinds = [type(statement).__name__ for statement in body]
    harmless = source_of(document_of(expression_of("tversky"), {}))
    assert kinds == [type(statement).__name__ for statement in ast.parse(harmless).body]
    assert all(sign.isprintable() or sign == "\n" for sign in source)
    assert max(len(line) for line in ast.get_docstring(ast.parse(source), clean=False).splitlines()) <= 110


def test_docstring_tells_formula_meaning_and_origin(metadata: dict[str, object]) -> None:
    docstring = ast.get_docstring(ast.parse(source_of(document_of(expression_of("boundary"), metadata))))
    for expected in (
        "winner 7: a segmentation loss found by lossevo",
        "L = 20 · μᶠ[μ[p · d]]",
        "d       signed distance",
        "μᶠ[a]   mean over images and foreground classes",
        "score      0.8125",
        "seeds      [1, 2, 3]",
        f"lossevo    {lossevo.__version__}",
        "loss = EvolvedLoss(spacing_mm=",
    ):
        assert expected in docstring


@pytest.mark.parametrize("name", ["tversky", "baikal", "focal_tversky"])
def test_gradient_is_the_derivative(name: str) -> None:
    loss = _loss_of(source_of(document_of(expression_of(name), {})))
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 2, 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (2, 1, 2, 3, 2), generator=generator)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits)


def test_spacing_in_mm_reaches_the_distance_map(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    from lossevo.losses.symbolic import ExpressionLoss

    expression = expression_of("boundary")
    spacing_mm = (4.0, 1.0, 0.5)
    loss = _loss_of(source_of(document_of(expression, {})), spacing_mm=spacing_mm)
    assert torch.equal(loss(*batch), ExpressionLoss(expression, spacing_mm=spacing_mm)(*batch))
    assert not torch.equal(loss(*batch), ExpressionLoss(expression)(*batch))


def test_mistakes_are_value_errors_that_say_what_is_wrong(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = batch
    loss = _loss_of(source_of(document_of(expression_of("boundary"), {})))
    with pytest.raises(ValueError, match="batch and spatial sizes"):
        loss(logits, labels[..., 1:])
    with pytest.raises(ValueError, match="labels 0 to 2 for 3 classes"):
        loss(logits, labels + 1)
    with pytest.raises(ValueError, match="distance_map has shape"):
        loss(logits, labels, logits[:1])


@pytest.mark.parametrize(("name", "is_told"), [("dice", True), ("boundary", True), ("cross_entropy", False)])
def test_what_soft_labels_do_is_told(name: str, is_told: bool) -> None:
    source = " ".join(source_of(document_of(expression_of(name), {})).split())
    assert (
        "with soft labels this loss is not smallest, or not only, where the prediction equals them" in source
    ) is is_told
