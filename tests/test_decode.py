from __future__ import annotations

from pathlib import Path

import pytest

from transforms.engine import DecodeSettings, decode_settings, shipped_decode


def test_decode_settings_merge_what_ships_with_what_is_asked(tmp_path: Path) -> None:
    config = tmp_path / "generation_config.json"
    config.write_text(
        '{"max_length": 142, "min_length": 56, "num_beams": 4, "length_penalty": 2.0, "no_repeat_ngram_size": 3, '
        '"forced_bos_token_id": 0, "bad_words_ids": [[1]], "early_stopping": true, "do_sample": true, "temperature": 0.5}'
    )
    shipped = decode_settings(tmp_path, {})
    assert (shipped.max_new_tokens, shipped.min_new_tokens, shipped.num_beams, shipped.length_penalty) == (141, 55, 4, 2.0)
    assert (shipped.forced_bos_token_id, shipped.bad_words_ids, shipped.early_stopping) == (0, ((1,),), True)
    asked = decode_settings(tmp_path, {"num_beams": 1, "max_new_tokens": 40, "length_penalty": None, "forced_bos_token_id": -1})
    assert (asked.num_beams, asked.max_new_tokens, asked.min_new_tokens) == (1, 40, 40)
    assert (asked.length_penalty, asked.forced_bos_token_id) == (2.0, None)
    assert decode_settings(None, {}) == DecodeSettings()
    assert decode_settings(tmp_path, {}) == shipped
    assert hash(shipped) == hash(decode_settings(tmp_path, {}))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"temperature": 1}, "decode.temperature is not a decode setting; choices: num_beams"),
        ({"num_beams": 0}, "decode.num_beams: 0 is not a whole number of at least 1"),
        ({"max_new_tokens": 2, "min_new_tokens": 3}, "decode.min_new_tokens: 3 exceeds max_new_tokens, 2"),
        ({"early_stopping": "soon"}, "'soon' is not one of true, false, never"),
    ],
)
def test_impossible_decode_settings_are_refused(overrides: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        decode_settings(None, overrides)


def test_shipped_settings_that_the_engine_lacks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"num_beam_groups": 4, "num_beams": 4}')
    with pytest.raises(ValueError, match="sets num_beam_groups, which this engine does not offer"):
        shipped_decode(tmp_path)
