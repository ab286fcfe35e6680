"""What is raised for bytes that are not what they should be: whoever decodes what another process, a file or Redis holds catches all of it.

msgspec has an error of its own for most of it. A byte that is no UTF-8 within a text is Python's UnicodeDecodeError, half a surrogate that is
to be encoded its UnicodeEncodeError, and what is nested too deeply its RecursionError; none of these is a DecodeError.
"""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
