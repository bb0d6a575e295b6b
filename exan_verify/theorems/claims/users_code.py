"""What a user's own statements raise becomes one error that names the file or predicate."""

from __future__ import annotations

from exan_verify.core import users_code
from exan_verify.errors import InputError


class ClaimError(InputError):
    """A user's statement cannot be loaded, or one of its predicates fails.

    Remedy: correct the named file or predicate; the original error is the cause.
    """


class UsersCode(users_code.UsersCode):
    """The same, with a :class:`ClaimError`."""

    error = ClaimError
