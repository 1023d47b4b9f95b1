"""Differences over other evaluation records than those of the sweep."""

from __future__ import annotations

import numpy as np
import pytest

from results.comparison.records import MIN_RECORDS, compare_records
from results.record_losses import RecordLosses


def losses(means: np.ndarray, tokens: np.ndarray) -> RecordLosses:
    return RecordLosses(means * tokens, tokens)


def drawn(generator: np.random.Generator, records: int) -> tuple[RecordLosses, RecordLosses]:
    """Records of very different lengths; the first configuration costs 3% on average."""
    tokens = np.ceil(generator.lognormal(3.5, 0.7, records))
    best = generator.gamma(4, 0.35, records)
    return losses(best + generator.normal(0.042, 0.15, records), tokens), losses(best, tokens)


def test_the_interval_holds_the_cost_over_all_records_19_times_in_20() -> None:
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(150):
        found = compare_records(*([one] for one in drawn(generator, 48)))
        assert found is not None
        held += found.low_percent <= 3.0 <= found.high_percent
    assert 0.9 <= held / 150 <= 0.99


def test_the_difference_is_that_of_the_mean_losses_weighted_by_tokens_and_averaged_over_seeds() -> None:
    generator = np.random.default_rng(5)
    first, second = drawn(generator, 64), drawn(generator, 64)
    tokens = first[0].tokens
    ours = [first[0], RecordLosses(second[0].nats, tokens)]
    theirs = [first[1], RecordLosses(second[1].nats, tokens)]
    found = compare_records(ours, theirs, seeds=2)
    assert found is not None
    mean = [sum(run.nats.sum() / tokens.sum() for run in runs) / 2 for runs in (ours, theirs)]
    assert found.percent == pytest.approx(100 * (mean[0] / mean[1] - 1), rel=1e-9)
    assert (found.records, found.seeds) == (64, 2)
    assert found == compare_records(ours, theirs, seeds=2)


def test_a_difference_that_is_the_same_on_every_record_has_an_interval_without_width() -> None:
    tokens = np.full(48, 20.0)
    found = compare_records([losses(np.full(48, 2.2), tokens)], [losses(np.full(48, 2.0), tokens)])
    assert found is not None
    assert (found.low_percent, found.high_percent) == pytest.approx((10.0, 10.0))
    assert found.rests_on is None


@pytest.mark.parametrize("side", [1, -1])
def test_a_difference_that_few_records_carry_says_how_many(side: int) -> None:
    generator = np.random.default_rng(7)
    tokens, best = np.full(100, 50.0), np.full(100, 2.0)
    difference = generator.normal(0, 0.001, 100)
    difference[[4, 80]] += 2.0  # 2% of the mean loss, from two records
    found = compare_records([losses(best + side * difference, tokens)], [losses(best, tokens)])
    assert found is not None
    assert side * found.percent == pytest.approx(2.0, abs=0.05)
    assert found.rests_on == 2
    assert found.high_percent - found.low_percent > 2.5
    spread = compare_records([losses(best + side * 0.04, tokens)], [losses(best, tokens)])
    assert spread is not None
    assert spread.percent == pytest.approx(side * 2.0)
    assert spread.rests_on is None


@pytest.mark.parametrize("records", [20, 24, 64, 256])
@pytest.mark.parametrize("rest", ["equal", "rounding", "by a share"])
def test_one_record_that_makes_the_difference_gives_an_interval_of_its_own_size(
    records: int, rest: str
) -> None:
    tokens, best = np.full(records, 50.0), np.full(records, 2.0)
    difference = np.zeros(records)
    if rest == "rounding":
        difference += 1e-9 * np.random.default_rng(1).normal(size=records)
    if rest == "by a share":
        difference += 0.02
    difference[3] += 0.04 * records  # 2% of the mean loss
    found = compare_records([losses(best + difference, tokens)], [losses(best, tokens)])
    assert found is not None
    all_others = 1.0 if rest == "by a share" else 0.0
    assert found.percent == pytest.approx(all_others + 2.0)
    # Such a record may be several times as frequent, or much rarer.
    assert all_others + 2 * 4.5 < found.high_percent < all_others + 2 * 7.1
    assert all_others - 1 < found.low_percent < all_others + 1
    better = compare_records([losses(best, tokens)], [losses(best + difference, tokens)])
    assert better is not None
    assert -100 <= better.low_percent < -7
    assert -1.1 < better.high_percent < 1


def test_an_interval_ends_where_no_loss_can_be_lower() -> None:
    tokens, ours, theirs = np.full(24, 50.0), np.full(24, 2.0), np.full(24, 2.0)
    theirs[5] = 90.0
    found = compare_records([losses(ours, tokens)], [losses(theirs, tokens)])
    assert found is not None
    assert found.low_percent == -100.0
    assert found.percent == pytest.approx(100 * (48 / 136 - 1))


def test_a_rare_record_that_was_seen_is_in_the_interval_19_times_in_20() -> None:
    generator = np.random.default_rng(11)
    held = seen = 0
    while seen < 100:
        tokens = np.ceil(generator.lognormal(3.5, 0.7, 48))
        best = generator.gamma(4, 0.35, 48)
        odd = generator.random(48) < 1 / 48
        if odd.any():
            seen += 1
            found = compare_records([losses(best + 0.014 + 0.8 * odd, tokens)], [losses(best, tokens)])
            assert found is not None
            held += found.low_percent <= 100 * (0.014 + 0.8 / 48) / 1.4 <= found.high_percent
    assert held >= 91


def test_too_few_records_and_other_records_give_no_interval() -> None:
    generator = np.random.default_rng(9)
    ours, theirs = drawn(generator, MIN_RECORDS - 1)
    assert compare_records([ours], [theirs]) is None
    ours, theirs = drawn(generator, MIN_RECORDS)
    assert compare_records([ours], [theirs]) is not None
    assert compare_records([ours], [RecordLosses(theirs.nats, theirs.tokens + 1)]) is None
    assert compare_records([], [theirs]) is None
