"""What holds for all tests."""

import signal

# Started in the background of a script, this process ignores SIGINT, and would make all those that it starts ignore it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
