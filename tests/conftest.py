"""How Hypothesis searches: the same examples every time by default, many new ones in test-all."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("default")

# Whoever starts the tests in the background has the shell ignore Ctrl-C for them, and for all that
# they start: then no test of it could end.
signal.signal(signal.SIGINT, signal.default_int_handler)
