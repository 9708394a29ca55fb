"""Extension of griffe: what docstrings hold besides Google's sections is shown as it is meant."""

import re

import griffe

ROLE = re.compile(r":(?:func|class|mod|meth|attr|data|obj):`~?([^`]+)`")
EXAMPLE = re.compile(r"^>>> .*(?:\n(?![ \t]*$).*)*", re.MULTILINE)  # up to an empty line


class Roles(griffe.Extension):
    """Sphinx's roles become code, and examples blocks of Python."""

    def on_object(self, *, obj, **_):
        """Read ``:func:`dpsjax.select``` as ```dpsjax.select```, and fence ``>>>``."""
        if obj.docstring:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", text)
