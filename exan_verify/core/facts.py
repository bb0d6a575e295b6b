"""What arguments establish about a batch, and how facts of several arguments add up to an outcome."""

from __future__ import annotations

from dataclasses import dataclass

from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.errors import SoundnessError

NO_SAMPLES: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Proved facts about one batch and its gradient.

    ``determined``: samples (x_m, y_m) that are in every batch with this gradient. ``free``: samples for
    which a batch with this gradient is known that does not contain them. ``features``: samples whose
    features, which a fully connected head is given, and label are in every batch with this gradient.
    ``unique`` / ``ambiguous``: the batch as a whole is, is not, the only one.
    """

    determined: frozenset[int] = NO_SAMPLES
    free: frozenset[int] = NO_SAMPLES
    features: frozenset[int] = NO_SAMPLES
    unique: bool = False
    ambiguous: bool = False

    def __or__(self, other: Facts) -> Facts:
        merged = Facts(
            determined=self.determined | other.determined,
            free=self.free | other.free,
            features=self.features | other.features,
            unique=self.unique or other.unique,
            ambiguous=self.ambiguous or other.ambiguous,
        )
        if merged.determined & merged.free or (merged.unique and merged.is_ambiguous):
            raise SoundnessError(f"two arguments contradict each other: {self} and {other}")
        return merged

    @property
    def is_ambiguous(self) -> bool:
        """Whether a second batch is proved to exist."""
        return self.ambiguous or bool(self.free)

    def outcome(self, samples: int, *, distinct: bool) -> Outcome:
        """The outcome for a batch of ``samples`` samples.

        When the samples are distinct and each is in every batch of this size, there is no other batch.
        """
        if self.unique or (distinct and len(self.determined) == samples):
            if self.is_ambiguous:
                raise SoundnessError(f"facts that contradict each other: {self}")
            return Outcome.UNIQUE
        return Outcome.AMBIGUOUS if self.is_ambiguous else Outcome.UNKNOWN

    def statuses(self, samples: int) -> tuple[SampleStatus, ...]:
        """One status per sample."""
        if self.unique:
            return (SampleStatus.DETERMINED,) * samples
        return tuple(
            SampleStatus.DETERMINED
            if m in self.determined
            else SampleStatus.FREE
            if m in self.free
            else SampleStatus.FEATURES
            if m in self.features
            else SampleStatus.UNKNOWN
            for m in range(samples)
        )


NOTHING = Facts()
"""No fact proved."""
