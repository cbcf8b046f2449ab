"""The figures of one export, for programs and for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class PrecisionReport:
    """One step graph. ``bpc`` is None where there was no text to judge by.

    ``max_abs_logit_difference``: of one step from torch's, over 200 of them in batches of 1 to 64.
    ``bpc_difference``: bits per character more than torch on the same characters.
    """

    precision: str
    file: str
    num_bytes: int
    max_abs_logit_difference: float
    bpc: float | None
    bpc_difference: float | None

    def line(self) -> str:
        """``step.onnx  0.9 MB  max logit difference 1.2e-06  2.1034 bits/char (+0.0000)``."""
        size = f"{self.num_bytes / 1e6:.1f} MB"
        quality = "no validation text"
        if self.bpc is not None:
            quality = f"{self.bpc:.4f} bits/char ({self.bpc_difference:+.4f})"
        difference = f"max logit difference {self.max_abs_logit_difference:.1e}"
        return f"{self.file:<14}{size:>10}  {difference}  {quality}"


@dataclass(frozen=True)
class ExportReport:
    """A written bundle. ``torch_bpc`` is over the ``num_tokens`` all precisions were judged on."""

    bundle: str
    name: str
    model_version: str | None
    digest: str
    torch_bpc: float | None
    num_tokens: int
    precisions: tuple[PrecisionReport, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def with_digest(self, digest: str) -> ExportReport:
        """The same report of a bundle whose manifest is written."""
        return replace(self, digest=digest)

    def lines(self) -> list[str]:
        """One line a precision and one for where it all stands, for people."""
        judged = "bits per character skipped: there is no validation text"
        if self.torch_bpc is not None:
            judged = f"torch: {self.torch_bpc:.4f} bits/char on {self.num_tokens:,} validation tokens"
        return [
            *(precision.line() for precision in self.precisions),
            judged,
            f"exported {self.name} to {self.bundle}",
        ]
