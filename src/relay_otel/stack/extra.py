"""A command that reads YAML in; its exit status out, and one sentence for what cannot be read or is not installed."""

import os
import sys
from collections.abc import Callable

PACKAGES = {"yaml": "PyYAML", "promql_parser": "promql-parser"}
"""What the extra [stack] brings, by the name it is imported by."""


def with_extra(deed: Callable[[], int]) -> int:
    """Do it. Our own exceptions are imported when it has failed: they need the extra too."""
    try:
        return deed()
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        return complain(f"{PACKAGES[error.name]} is missing; pip install 'relay-otel[stack]'.")
    except BrokenPipeError:  # whoever read it has seen enough; what is left would be said at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return complain(
            f"{error.filename or 'a file'} cannot be used ({error.strerror or error}); correct that and repeat."
        )
    except Exception as error:
        from relay_otel.contract.fields import ContractError
        from relay_otel.stack.sources import StackError

        if not isinstance(error, ContractError | StackError):
            raise
        return complain(str(error))


def complain(sentence: str, status: int = 1) -> int:
    """Say it on stderr; the exit status."""
    print(f"relay-otel: {sentence}", file=sys.stderr)
    return status
