"""Exact numbers as Coq reads them: tensors of machine words, tables of residues, lists of indices.

A word holds a sign bit, then ``shift_bits`` bits of a shift s, then a mantissa m; with the tensor's
denominator D it stands for ``+- m 2^s / D`` (proofs/coq/tensors.v, ``decode``). A float64 is one word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import lcm

from exan_verify.core.network import Array, to_fraction
from exan_verify.errors import InputError

WORD_BITS = 63
"""Of Coq's primitive integers."""

SENTENCE = 4096
"""Numbers that one sentence holds, but for a row that has more. coqc takes 35 us for each of 100,000 or so;
401,408 in one sentence it had not read after minutes, row by row it reads them in 15 s."""

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Numbers ``numerators / denominator``, row by row, and the words that stand for the numerators."""

    numerators: Rows
    denominator: int
    shift_bits: int
    words: Rows

    def definition(self, name: str) -> str:
        """Sentences that define ``name`` of type ``tensor``."""
        rows, words = words_of(name, self.words)
        return f"{rows}Definition {name} := Tensor {self.shift_bits} {self.denominator}%BZ {words}.\n"


def tensor(values: Array, name: str) -> Tensor:
    """The numbers of ``values``, (rows, cols) or (cols,).

    Raises :class:`InputError` naming the tensor where one of them is too long for a word.
    """
    exact = [[to_fraction(v) for v in row] for row in (values if values.ndim == 2 else [values])]
    denominator = lcm(*(v.denominator for row in exact for v in row))
    numerators = [[v.numerator * (denominator // v.denominator) for v in row] for row in exact]
    lengths = {(abs(n).bit_length(), _zeros(n)) for row in numerators for n in row}
    for bits in range(WORD_BITS):
        longest = (1 << bits) - 1
        if all(length - min(zeros, longest) + bits < WORD_BITS for length, zeros in lengths):
            words = [[_word(n, bits, longest) for n in row] for row in numerators]
            return Tensor(numerators=numerators, denominator=denominator, shift_bits=bits, words=words)
    worst = max(length - zeros for length, zeros in lengths)
    raise InputError(
        f"{name} has numbers that need {worst} binary digits over their common denominator, more than a "
        f"machine word of {WORD_BITS} bits holds beside a sign and a shift; round them to float64 or float32"
    )


def _zeros(number: int) -> int:
    """Trailing zero bits."""
    return (number & -number).bit_length() - 1 if number else 0


def _word(number: int, bits: int, longest: int) -> int:
    shift = min(_zeros(number), longest)
    return ((abs(number) >> shift) << bits | shift) << 1 | (number < 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Numbers ``numerators / denominator`` of any length, row by row."""

    numerators: Rows
    denominator: int

    def definition(self, name: str) -> str:
        """Sentences that define ``name``: the numerators as lists of integers."""
        lists = (
            "[:: " + "; ".join(f"({n})" if n < 0 else str(n) for n in row) + "]%BZ" for row in self.numerators
        )
        rows, named = _rows_of(name, self.numerators, lists, " : seq Z")
        return f"{rows}Definition {name} : integers := [:: {named}].\n"


def table(values: Array, over: int) -> Table:
    """The numbers of ``values`` (rows, cols), over a multiple of ``over``."""
    exact = [[to_fraction(v) for v in row] for row in values]
    denominator = lcm(over, *(v.denominator for row in exact for v in row))
    return Table(
        numerators=[[v.numerator * (denominator // v.denominator) for v in row] for row in exact],
        denominator=denominator,
    )


def words_of(name: str, rows: Rows) -> tuple[str, str]:
    """Sentences to go before, and an array of arrays of machine integers, by the name ``name``."""
    sentences, inner = _rows_of(name, rows, ("[| " + "; ".join(map(str, row)) + " | 0 |]" for row in rows))
    return sentences, f"[| {inner}\n  | [| | 0 |] |]"


def _rows_of(name: str, rows: Rows, terms: Iterable[str], kind: str = "") -> tuple[str, str]:
    """Sentences to go before, and the ``terms`` of all ``rows``: those of a large matrix have one each."""
    if sum(map(len, rows)) <= SENTENCE:
        return "", ";\n  ".join(terms)
    names = [f"{name}_row_{i}" for i in range(len(rows))]
    sentences = (f"Definition {row}{kind} := {term}.\n" for row, term in zip(names, terms, strict=True))
    return "".join(sentences), "; ".join(names)


def indices_literal(indices: Iterable[int]) -> str:
    """A list of natural numbers."""
    return "[:: " + "; ".join(map(str, indices)) + "]%N"


def widths_literal(widths: Iterable[int]) -> str:
    """A list of widths, read as natural numbers in every scope."""
    return "[::" + ";".join(f" {n}%N" for n in widths) + "]"
