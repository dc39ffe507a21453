"""The one kind of error a user should ever see."""


class InputError(ValueError):
    """Something the user gave us cannot be used.

    The message is one sentence or two that say what was found, what was expected and how to
    mend it. The command line prints it without a traceback.
    """


class UseError(InputError):
    """A setting or option that makes no sense, whatever the data (exit status 2)."""


class PuzzleError(InputError):
    """A puzzle that breaks an invariant of :class:`cello1.Puzzle`."""


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says."""
    said = str(error).strip().split("\n")[0]
    return said or type(error).__name__


def brief(value: object, limit: int = 60) -> str:
    """Quote an offending value on one line, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 4] + "..." + text[-1]
