"""One file a verb. The only room with deferred imports, so that `hexad --help` is instant."""

import importlib
import signal


def start() -> int:
    """The command `hexad`. Until a verb runs, Ctrl-C ends it as it ends what is not Python: at once, without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return int(importlib.import_module("hexad.cli.main").main())
