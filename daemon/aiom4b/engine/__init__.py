"""How does FFmpeg do the work, and on which cores?"""

import os

# One process a core: the threads that a BLAS library starts would only get in each other's way. It looks at this once,
# when numpy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
