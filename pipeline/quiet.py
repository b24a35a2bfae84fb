"""Keeping other libraries quiet: they log what they were working on. For every process that does a part of a job."""

from __future__ import annotations

import logging
import os

# Beam logs whole tracebacks, Great Expectations redirects warnings, the others quote what they were given.
QUIETED = ("apache_beam", "great_expectations", "py.warnings", "transformers", "urllib3", "botocore")


def quiet_libraries() -> None:
    """Turn the loggers of libraries that quote their input down to nothing, and their telemetry off."""
    for name in QUIETED:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
