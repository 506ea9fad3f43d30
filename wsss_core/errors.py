"""What a user can mend."""

import re


class UserError(Exception):
    """A mistake in the configuration, the data or a file; the message names the file, row or key.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """


def whole(error: BaseException) -> str:
    """What another library's error says, whole and in one line: its kind and its text, if it has any.

    Examples
    --------
    >>> whole(EOFError()), whole(RuntimeError("cannot be read.\\n\\x1b[1mTry again\\x1b[0m"))
    ('EOFError', 'RuntimeError: cannot be read. Try again')
    """
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
