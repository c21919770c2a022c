"""docs/losses keeps step with the catalogue, names tests that exist, and its Python runs."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from lossevo.losses import describe, names, parameters
from lossevo.losses.adaptive_schemes import VARIANTS
from lossevo.losses.relations import RELATIONS
from lossevo.losses.scheduled import SCHEDULES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "losses"
FAMILIES = ("distribution", "region", "distance", "compound", "adaptive", "learned")
README = (FOLDER / "README.md").read_text(encoding="utf-8")
PAGES = {family: (FOLDER / f"{family}.md").read_text(encoding="utf-8") for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_loss_has_a_section_on_its_familys_page(family):
    sections = re.findall(r"^## `(\w+)`$", PAGES[family], re.MULTILINE)
    assert sections == [name for name in names() if describe(name).family == family]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_section_tells_of_the_gradient_and_of_the_source(family):
    for section in re.split(r"^## (?=`)", PAGES[family], flags=re.MULTILINE)[1:]:
        assert "**Source" in section, section.splitlines()[0]
        assert "**Gradient**" in section or section.startswith("`baikal_cma`"), section.splitlines()[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_words_of_code_are_losses_and_parameters(family):
    """A parameter that was renamed is found out here."""
    known = {*names(), *(key for name in names() for key in parameters(name)), *SCHEDULES, *VARIANTS}
    words = re.findall(r"`(\w+)(?:=[^`]+)?`", PAGES[family])
    assert set(words) - known <= {"distance_map", "float16", "iter_"}


def test_names_in_the_guide_are_of_the_catalogue():
    guide = README.split("## Which to try first")[1].split("## Which generalises which")[0]
    named = set(re.findall(r"`(\w+)`", guide))
    assert named <= set(names())
    for command in re.findall(r"--losses (\S+)", README):
        assert set(command.split(",")) <= set(names())


def test_identities_are_those_of_the_code_and_name_their_tests():
    section = README.split("## Which generalises which")[1].split("## One convention")[0]
    listed = section.split("```\n")[-2].splitlines()
    assert listed == [str(relation) for relation in RELATIONS]
    arrows = re.findall(r"^ +(\w+) -->\|.*\| (\w+)$", section, re.MULTILINE)
    assert set(arrows) == {(relation.special, relation.general) for relation in RELATIONS}


def test_tests_that_are_named_exist():
    identities = README.split("Others are no choice")[1].split("## One convention")[0]
    named = [("tests/losses/test_identities.py", function) for function in re.findall(r"`(test_\w+)` \|", identities)]
    assert named
    named += re.findall(r"(tests/[\w/]+\.py)::(\w+)", README + "".join(PAGES.values()))
    for file, function in named:
        assert re.search(rf"^ *def {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), function


def test_links_lead_somewhere():
    for path in FOLDER.glob("*.md"):
        for link in re.findall(r"\]\((?!http)([^)]+)\)", path.read_text(encoding="utf-8")):
            file, _, anchor = link.partition("#")
            target = path if not file else (FOLDER / file).resolve()
            assert target.exists(), link
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert not anchor or anchor in anchors, link


@pytest.fixture
def nnunet(monkeypatch):
    """A stand-in for the two modules of nnU-Net v2 that the example needs, with what it uses of them."""

    class DeepSupervisionWrapper(nn.Module):
        def __init__(self, loss, weight_factors):
            super().__init__()
            self.loss, self.weight_factors = loss, weight_factors

        def forward(self, outputs, targets):
            terms = zip(self.weight_factors, outputs, targets, strict=True)
            return sum(weight * self.loss(output, target) for weight, output, target in terms if weight)

    class Trainer:
        enable_deep_supervision = True
        is_ddp = False
        configuration_manager = types.SimpleNamespace(batch_dice=True)

        def _get_deep_supervision_scales(self):
            return [[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]]

    for path, content in (
        ("nnunetv2.training.loss.deep_supervision", {"DeepSupervisionWrapper": DeepSupervisionWrapper}),
        ("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", {"nnUNetTrainer": Trainer}),
    ):
        module = types.ModuleType(path)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, path, module)
        for end in range(path.count(".")):
            parent = ".".join(path.split(".")[: end + 1])
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or types.ModuleType(parent))


def test_python_of_the_documents_runs(nnunet):
    """Block after block, each with what the ones before it have defined."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 1, 8, 16, 16, generator=generator)
    target = torch.zeros(1, 1, 8, 16, 16, dtype=torch.long)
    target[:, :, 2:6, 4:12, 4:12] = 1
    volume = torch.zeros(1, 1, 12, 24, 24, dtype=torch.long)
    volume[..., 4:12, 8:24, 8:24] = target
    network = nn.Conv3d(1, 2, 1)
    scope = {
        "torch": torch,
        "network": network,
        "image": image,
        "target": target,
        "logits": network(image),
        "coarse_logits": network(image[..., ::2, ::2, ::2]),
        "loader": [(image, target)],
        "epochs": 2,
        "one_hot_volume": torch.cat([volume == 0, volume == 1], dim=1),
    }
    blocks = [
        block
        for text in (README, *PAGES.values())
        for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]
    assert len(blocks) >= 5
    for block in blocks:
        exec(block, scope)
    assert scope["value"].isfinite()
    built = scope["nnUNetTrainerLossevo"]()._build_loss()
    outputs = [torch.randn(1, 2, *size, generator=generator) for size in ((8, 16, 16), (4, 8, 8), (2, 4, 4))]
    targets = [torch.zeros(1, 1, *output.shape[2:]) for output in outputs]
    assert built(outputs, targets).isfinite()
    assert sum(built.weight_factors) == pytest.approx(1)
