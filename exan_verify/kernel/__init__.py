"""The independent checker: re-derives a certificate's claim from model, batch or gradient, and certificate.

It imports none of the engines and runs no argument of theirs (a test keeps that): it shares with them the
records (:mod:`exan_verify.core`) and the exact arithmetic (:mod:`exan_verify.exact`). Engines that look for a
second batch ask the checkers of :mod:`exan_verify.kernel.second` before they speak of one. Why acceptance
implies the claim is argued step by step in docs/theory.md, "Why a certificate proves its claim".
"""
