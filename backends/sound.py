"""What no backend can start, whatever its platform: one rule for all of them."""

import re

from backends.base import Submission

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,34}[a-z0-9])?", re.ASCII)  # of a submission


def problem_of(submission: Submission, max_batch: int) -> str:
    """Why this submission can never be started, or nothing."""
    if not NAME.fullmatch(submission.id):
        return f"{submission.id!r} is not a name: a lowercase DNS label of at most 36 characters"
    if not 1 <= submission.count <= max_batch:
        return f"{submission.count} workers in one submission; 1 to {max_batch} are possible"
    if submission.join_tokens and len(submission.join_tokens) != submission.count:
        return f"{len(submission.join_tokens)} join tokens for {submission.count} workers"
    if bad := [name for name in submission.environment if not name.isidentifier() or not name.isascii()]:
        return f"{bad[0]!r} is not the name of an environment variable"
    if any("\0" in text for text in texts_of(submission)):
        return "a NUL character in command, set-up or environment"
    return "" if submission.command else "there is no command"


def texts_of(submission: Submission) -> list[str]:
    """Whatever of it reaches a node as text."""
    return [*submission.command, *submission.setup, *submission.environment.values(), *submission.join_tokens]
