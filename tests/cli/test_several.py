"""One flag, several words: the document's way to name coins, beside the usual ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.cli.several import listed, spread


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ("--coins BTC ETH SOL", "--coins BTC --coins ETH --coins SOL"),
        ("--coins BTC ETH --no-plot", "--coins BTC --coins ETH --no-plot"),
        ("--start 2024-01-01 --coins BTC,ETH SOL --end 2024-02-01",
         "--start 2024-01-01 --coins BTC,ETH --coins SOL --end 2024-02-01"),
        ("--coins=BTC ETH", "--coins=BTC --coins ETH"),
        ("--coins BTC --coins ETH", "--coins BTC --coins ETH"),
        ("--coins --no-plot", "--coins --no-plot"),
        ("--set gamma=1 word", "--set gamma=1 word"),
        ("", ""),
    ],
)  # fmt: skip
def test_words_after_the_flag_are_its_own(words, made):
    """Up to the next flag; other flags keep theirs."""
    assert spread(words.split(), ("--coins",)) == made.split()


@given(st.lists(st.sampled_from(["--coins", "--coins=A", "--other", "BTC", "ETH", "-x"])))
def test_no_word_is_lost_and_the_second_time_changes_nothing(words):
    """Only flags are added."""
    made = spread(words, ("--coins",))
    assert [word for word in made if word != "--coins"] == [word for word in words if word != "--coins"]
    assert spread(made, ("--coins",)) == made


def test_commas_part_values_too():
    """Blanks and empty parts are nothing."""
    assert listed(["BTC,ETH", " SOL ", ",", "A,,B"]) == ["BTC", "ETH", "SOL", "A", "B"]
