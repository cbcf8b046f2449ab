"""Export a trained model as a bundle: step graphs for the engine, a manifest and a model card.

    from charrnn.export import export
    report = export("runs/shakespeare", "shakespeare")

``exporter`` ties it together. ``graph`` writes the step graph over ``arithmetic`` (float32 or 8-bit integers
by ``quantize``) from checked ``weights``; ``judge`` compares graphs with torch by ``parity`` and ``bpc``
through ``stepping``; ``manifest``, ``card`` and ``folder`` make and write the files.
"""

from charrnn.export.exporter import ExportOptions, export, export_model
from charrnn.export.judge import Tolerances
from charrnn.export.report import ExportReport, PrecisionReport
from charrnn.export.source import TrainedModel

__all__ = [
    "ExportOptions",
    "ExportReport",
    "PrecisionReport",
    "Tolerances",
    "TrainedModel",
    "export",
    "export_model",
]
