"""Checks by instances: a conclusion that must hold where the hypotheses do, and must be able to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from exan_verify.theorems.statement import Progress, Result

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCheck(Generic[T]):
    """What a packaged check runs: ``conclusion`` at ``count`` exact ``instances`` of the hypotheses.

    ``instances(seed)`` yields at least ``count`` of them. ``spoiled`` changes an instance so that the
    conclusion is false there; a conclusion that does not notice shows nothing, and the check fails. ``said``
    describes the instances, in the plural.
    """

    instances: Callable[[int], Iterable[T]]
    conclusion: Callable[[T], bool]
    spoiled: Callable[[T], T]
    count: int
    said: str

    def __call__(self, progress: Progress, seed: int) -> Result:
        """Run it; the first instance against it is reported."""
        done = 0
        for instance in self.instances(seed):
            if done == self.count:
                break
            progress(self.said, done, self.count)
            if not self.conclusion(instance):
                return Result(holds=False, detail=f"fails at instance {done} of {self.said}: {instance}")
            if self.conclusion(self.spoiled(instance)):
                detail = f"cannot tell instance {done} of {self.said} from a spoiled one: {instance}"
                return Result(holds=False, detail=detail)
            done += 1
        progress(self.said, done, self.count)
        detail = f"{done} {self.said}; each spoiled copy is noticed"
        return Result(holds=done == self.count, detail=detail, data={"instances": done})
