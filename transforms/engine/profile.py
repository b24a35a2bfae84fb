"""Where an engine's time went and what was computed in vain: counters that a benchmark reads. No text, no ids."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


@dataclass(slots=True)
class Profile:
    """Sums over the lanes of an engine; seconds of different lanes overlap in time.

    `encode_seconds`, `decode_seconds`, `schedule_seconds`: in the encoder with the cross-attention keys and values; in decode steps; in
    everything between. `encoded_tokens`: source positions computed, `encoded_padding` those of them that only filled a batch.
    `steps`: decode steps. `row_steps`: rows computed in them (a request has a row per beam). `idle_row_steps`: rows that stood empty
    while requests waited. `drained_row_steps`: rows that stood empty because none waited any more.
    `drafted_tokens`: tokens that were read as drafts, `kept_tokens` those of them that were right and had an
    alternative: each saved its row a step.
    `cross_positions`: source positions whose keys and values were read, over requests and steps.
    """

    encode_seconds: float = 0.0
    decode_seconds: float = 0.0
    schedule_seconds: float = 0.0
    encoded_tokens: int = 0
    encoded_padding: int = 0
    steps: int = 0
    row_steps: int = 0
    idle_row_steps: int = 0
    drained_row_steps: int = 0
    cross_positions: int = 0
    drafted_tokens: int = 0
    kept_tokens: int = 0

    def add(self, other: Profile) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def as_dict(self) -> dict[str, float]:
        return asdict(self)
