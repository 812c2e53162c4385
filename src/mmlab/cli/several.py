"""Options that take several words, `--coins BTC ETH SOL`, as the strategy's document writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

OPTIONS = ("--coins",)


class Several(TyperCommand):
    """A command whose `--coins` takes all words up to the next flag; give it to typer as `cls`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words as typer wants them: the flag before each."""
        return super().parse_args(ctx, spread(args, OPTIONS))


def spread(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """`--coins BTC ETH` as `--coins BTC --coins ETH`; everything else as it is. A flag without words stays alone."""
    made: list[str] = []
    flag, given = "", 0
    for word in words:
        if word.startswith("-"):
            name, equals, _ = word.partition("=")
            flag, given = (name, 1 if equals else 0) if name in options else ("", 0)
            made.append(word)
        elif flag and given:
            made += [flag, word]
        else:
            made.append(word)
            given += 1
    return made


def listed(texts: Sequence[str]) -> list[str]:
    """Values one by one, wherever commas part them."""
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]
