"""What a user can mend."""


class UserError(Exception):
    """A mistake in the configuration, the data or a file; the message names the file, row or key.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """
