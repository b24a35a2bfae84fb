"""Valid files made invalid: seeded damage of the kinds that transfers and exports do."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence


def damaged(samples: Sequence[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` variants of `samples`: cut, with bytes changed, inserted, repeated or taken from another sample. The same for a seed."""
    rng = random.Random(seed)
    for _ in range(count):
        data = rng.choice(samples)
        for _ in range(rng.choice((1, 1, 2, 5))):
            data = _damage(data, rng.choice(samples), rng)
        yield data


def _damage(data: bytes, other: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    noise = bytes(rng.choice(b'\x00\xff\xc3"{}[]<>&\\|^~\r\n:,0aZ') for _ in range(rng.randrange(1, 6)))
    match rng.randrange(6):
        case 0:
            return data[:start]
        case 1:
            return data[:start] + noise + data[start + len(noise) :]
        case 2:
            return data[:start] + noise + data[start:]
        case 3:
            return data[:start] + data[end:]
        case 4:
            return data[:end] + data[start:end] * rng.randrange(1, 4) + data[end:]
    cut = rng.randrange(len(other) + 1)
    return data[:start] + other[cut:]
