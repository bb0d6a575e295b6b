"""The HTML report: one self-contained file that opens in a browser and needs nothing else."""

from exan_verify.report.content import Recovery, Section
from exan_verify.report.html import render

__all__ = ["Recovery", "Section", "render"]
