"""A worker process of FnApiRunner: Beam's own, but that the kernel ends it with the process that started it.

Beam's would go on with its whole bundle, for nobody.
"""

from __future__ import annotations

import sys

from pipeline.restart import die_with


def main() -> None:
    """Serve the process whose id is the one argument; Beam's addresses are in the environment."""
    die_with(int(sys.argv[1]))
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv[:1])


if __name__ == "__main__":
    main()
