"""The exceptions that chartmill raises on purpose. Their messages hold no note text, ids, or file names."""

from __future__ import annotations


class ChartmillError(Exception):
    """Something went wrong that a message can explain; the run stops with exit code 1."""


class ConfigurationError(ChartmillError):
    """The job cannot start as configured; exit code 2."""


class AccountingError(ChartmillError):
    """Notes in are not notes summarized plus notes quarantined. Never expected; nothing is published."""
