"""Text of strangers on a terminal: names of files and classes may hold characters that command it."""

from __future__ import annotations

LONGEST_MESSAGE = 2000  # characters that a person may read; a name can have any number
_END = 500  # what was expected stands there


def printable(text: str) -> str:
    """The text on one line, in which every character that is not printed is written as an escape.

    Control characters and line ends are among them, signs that change the direction of writing, and bytes of
    file names that are not UTF-8.

    >>> print(printable("caf\\u00e9 \\x1b[31m\\n\\udcff"))
    café \\x1b[31m\\n\\udcff
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(message: str) -> str:
    """A message of which the middle is left out where names make it longer than `LONGEST_MESSAGE`.

    >>> len(shortened("n" * 10**6)), shortened("n" * 10**6)[1498:1508]
    (2005, 'nn ... nnn')
    """
    if len(message) <= LONGEST_MESSAGE:
        return message
    return f"{message[: LONGEST_MESSAGE - _END]} ... {message[-_END:]}"
