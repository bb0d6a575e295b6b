"""The independent checker: re-derives a certificate's claim from model, batch or gradient, and certificate.

It imports none of the engines (a test keeps that): it shares with them the records (``network``,
``verdict``, ``certificate``) and the exact arithmetic (``exact``). Why acceptance implies the claim is
argued step by step in docs/theory.md, "Why a certificate proves its claim".
"""

from exan_verify.kernel.checker import check

__all__ = ["check"]
