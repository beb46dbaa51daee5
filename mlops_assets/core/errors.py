"""The exceptions of the local stack: what is wrong, and what to do about it."""


class StackError(Exception):
    """A fault of the local stack that a person can remedy.

    `remedy` says what to do, as an instruction; `str()` gives the problem followed by the remedy.
    """

    def __init__(self, problem: str, *, remedy: str) -> None:
        super().__init__(f"{problem}\n{remedy}")
        self.problem = problem
        self.remedy = remedy


class AwayError(Exception):
    """A server does not answer now. The same question may be answered later."""
