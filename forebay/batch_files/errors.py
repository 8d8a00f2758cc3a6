"""What batch files can fail with as a whole; what one row fails with goes into a file."""

from forebay.errors import ForebayError


class BatchFileError(ForebayError):
    """A batch file cannot be run as asked; the text says why and what to do."""


class RowError(ForebayError):
    """A row that cannot be sent, or whose answer cannot be written."""
