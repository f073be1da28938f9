"""How does a real service process meet the fake? Python runs this first where this folder is on its path and the port is named."""

import atexit
import os
import random
from contextlib import ExitStack

if "LOOPBACK_AUDIBLE_PORT" in os.environ:
    import audible_loopback

    _for_ever = ExitStack()
    _for_ever.enter_context(audible_loopback.all_to(int(os.environ[audible_loopback.PORT])))
    atexit.register(_for_ever.close)
    # What a service leaves to chance is how much longer it waits than it must; a test has no time for that.
    random.random = lambda: 0.0
