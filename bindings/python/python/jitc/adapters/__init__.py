"""The cache behind others: bytes in, bytes out, in the folders of jitc's cache, with its
verification, read-only folders, trust and signatures. What is kept so is typed as foreign,
and is never taken for a kernel of jitc's own.

* :mod:`jitc.adapters.triton`: Triton's cache manager, set by ``TRITON_CACHE_MANAGER``.
* :mod:`jitc.adapters.cuda_core`: cuda.core's program cache, for ``Program.compile(cache=)``.

Each needs its project's package, and imports it when it is imported itself.
"""

from __future__ import annotations
