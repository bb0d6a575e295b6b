"""The HTML report: one self-contained file that opens in a browser and needs nothing else.

It draws what it is given and runs nothing.
"""

from exan_verify.report.content import Section
from exan_verify.report.html import render

__all__ = ["Section", "render"]
