"""How much memory this program occupies, for the examples that print it."""

import sys


def peak():
    """The most it has occupied so far, in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/status") as status:  # Linux
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
