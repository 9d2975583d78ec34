"""An extension of Griffe: doctests in docstrings are shown as code, with or without a heading above them."""

import re
from typing import Any

import griffe

BLOCK = re.compile(r"^( *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)  # from a prompt to the next blank line


class Examples(griffe.Extension):
    """Put each doctest of a docstring into a block of code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by Griffe for each module, class, function and attribute."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = BLOCK.sub(r"\1```pycon\n\g<0>\n\1```", obj.docstring.value)
