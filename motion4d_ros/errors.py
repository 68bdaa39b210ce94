"""The error for what users can mend. It stands alone, so that it can be raised where no library is installed."""


class Motion4DError(Exception):
    """Something the user can mend. The message is one line: what, where, what to do.

    It is the only error that callers need to catch; anything else is a defect of this package.
    """
