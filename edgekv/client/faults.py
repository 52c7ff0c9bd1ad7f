"""Why a connection is not there, in a few words for an error's sentence."""

import os


def reason(fault: Exception) -> str:
    """``connection refused``, ``no answer``, or what the fault says itself."""
    if isinstance(fault, TimeoutError):
        return str(fault) or "no answer"
    number = fault.errno if isinstance(fault, OSError) else None
    return os.strerror(number).lower() if number and number > 0 else str(fault).lower()
