"""The error for what users can mend. It stands alone, so that it can be raised where no library is installed."""


class Motion4DError(Exception):
    """Something the user can mend. The message is one line: what, where, what to do."""
