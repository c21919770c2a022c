"""Losses as files that outlive lossevo: ``loss.json``, ``loss.py``, ``loss.pt2``, and :func:`load` to read them back.

What is exported is an expression or a loss network; the three files are the same for both.

=============  ===================================================  =====================================
file           what it is                                           trust
=============  ===================================================  =====================================
``loss.json``  the loss and its provenance, plain data              safe from strangers
``loss.py``    a readable ``nn.Module`` that needs PyTorch alone    it is executed: read it first
``loss.pt2``   a ``torch.export`` program, differentiable           PyTorch unpickles parts: friends only
=============  ===================================================  =====================================
"""

from __future__ import annotations

from lossevo.export.document import LossDocument, read_document
from lossevo.export.load import load
from lossevo.export.verification import Deviation
from lossevo.export.writer import ExportReport, export_loss

__all__ = ["Deviation", "ExportReport", "LossDocument", "export_loss", "load", "read_document"]
