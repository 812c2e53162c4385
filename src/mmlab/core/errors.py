"""One tree of errors; each says what went wrong, where, and what to do about it."""


class MmlabError(Exception):
    """Root of every error that mmlab raises on purpose.

    `exit_code` is what the command line returns (1 data, 2 usage); `remedy` is one sentence
    that tells the user what to do next, printed under the message.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageError(MmlabError):
    """A flag, an environment variable or a specification that cannot be meant."""

    exit_code = 2


class DataError(MmlabError):
    """Data that is absent, torn, or does not say what it should."""


class TableError(DataError):
    """A table that breaks its contract: names the table, the columns or the rule, and the rows."""


class LakeError(DataError):
    """A file or folder of the lake that is missing, torn or not the one that was written."""


class FeedError(DataError):
    """A message of the venue that cannot be read; the message is kept aside and the feed goes on."""
