"""Text from other code, such as the message of an exception, made fit for tables, terminals, logs and pages."""

from __future__ import annotations

import unicodedata

MOST = 2000
CUT = " [...] "
CONTROLS = ("Cc", "Cf", "Cs", "Co", "Cn")  # control, format (such as changes of direction), surrogate, private, none


def plain(text: str, most: int = MOST) -> str:
    """Text on one line, of characters that can be shown and encoded.

    White space becomes one blank; any other character that controls a terminal or cannot be encoded is written out as
    its escape sequence. What is longer is cut in the middle, so that its beginning and its end stay.

    Args:
        text: Any text.
        most: The largest number of characters that is returned.
    """
    if len(text) > 4 * most:
        text = text[: 2 * most] + text[-2 * most :]
    line = "".join(map(_shown, " ".join(text.split())))
    if len(line) <= most:
        return line
    half = (most - len(CUT)) // 2
    return line[:half] + CUT + line[-half:]


def _shown(character: str) -> str:
    if (character.isascii() and character.isprintable()) or unicodedata.category(character) not in CONTROLS:
        return character
    return character.encode("unicode_escape").decode()
