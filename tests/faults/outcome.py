"""What a command may come to that was given something wrong: the end, or one sentence."""

import resource
from collections.abc import Callable

from utils.errors import NotFiniteError, UserError, sentence

MEMORY = 4 << 30  # bytes of address space that a case may take beyond what the process has


def ends_or_says_why(main: Callable[[], int], about: str = "") -> None:
    """Call ``main``, which must return 0 or end with one sentence that names what it is ``about``.

    Raises AssertionError for any other end: another exception, or words that say nothing. The process's memory is
    limited from here on.
    """
    pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
    try:
        code = main()
    except NotFiniteError:  # training blew up, and says so
        return
    except (UserError, MemoryError, RuntimeError) as error:
        said = sentence(error)
        if said.startswith("Not enough memory"):
            return
        if not isinstance(error, UserError):
            raise
        assert "\n" not in said, said
        assert said.endswith("."), said
        assert about in said, f"it does not name {about}: {said}"
        return
    assert code == 0, f"exit code {code}"
