"""Plain values are read as typer reads them; all others are left to typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from mmlab.cli.later import built
from mmlab.cli.values import READERS, bare

GIVEN: dict[str, Any] = {}


def command(count: Annotated[int, typer.Option()] = 3, rate: Annotated[float | None, typer.Option()] = 2,
            name: Annotated[str, typer.Option()] = "x", place: Annotated[Path, typer.Option()] = Path("data"),
            words: Annotated[list[str] | None, typer.Option()] = None, yes: Annotated[bool, typer.Option()] = False,
            ) -> None:  # fmt: skip
    """Flags of every kind."""
    GIVEN.update(locals())


def typers() -> Any:
    """The command as typer builds it."""
    one = typer.Typer(add_completion=False)
    one.command("command")(command)
    return typer.main.get_command(one)


def ours() -> Any:
    """The command as a group of ours builds it."""
    one = typer.Typer(add_completion=False)
    one.command("command")(lambda: command)
    return built(typer.main.get_command(one))


USAGE = typer.BadParameter.__bases__[0]  # also of a flag that does not exist
THEIRS, OURS = typers(), ours()
NUMBERS = st.one_of(
    st.integers().map(str), st.floats().map(str), st.floats().map(lambda x: f"{x:.3f}"),
    st.from_regex(r"[-+ ]?[0-9_]{1,20}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["", "nan", "-inf", "1e999", "١٢", "1_000", " 7", "7 ", "007", "0x10", "1.", ".5", "--5", "True",
                     "-0", "9" * 30, "-0.0", "5.0", "1e3"]),
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(["", "BTCUSDT", "a\nb", "\udcff", "币安", "-", "."]))


def read(made: Any, words: list[str]) -> Any:
    """What the function is given, or what typer says of the words."""
    GIVEN.clear()
    try:
        made.main(words, standalone_mode=False)
    except USAGE as error:
        return type(error).__name__, str(error)
    return sorted(GIVEN.items())


def check(*words: str) -> None:
    """Both read the same, to the type."""
    told, meant = read(OURS, list(words)), read(THEIRS, list(words))
    assert repr(told) == repr(meant)


@given(text=NUMBERS, flag=st.sampled_from(["count", "rate", "name"]))
def test_a_number_is_the_one_that_typer_reads(text, flag):
    """Or typer's own message."""
    check(f"--{flag}={text}")


@given(text=TEXTS, flag=st.sampled_from(["name", "count", "rate"]))
def test_a_text_is_the_one_that_typer_reads(text, flag):
    """Also an unusual one."""
    check(f"--{flag}={text}")


@pytest.mark.parametrize("place", ["", ".", "nowhere", "a/b", "-", "here", "/dev/null"])
def test_a_path_is_the_one_that_typer_reads(place, tmp_path, monkeypatch):
    """Whether it is there or not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("")
    check(f"--place={place}")


@pytest.mark.parametrize("words", [[], ["--yes"], ["--no-yes"], ["--words", "a", "--words", "b"], ["--nonsense"]])
def test_flags_that_are_not_given_and_those_of_several_words_are_as_typer_has_them(words):
    """Defaults to their annotated type: a rate of 2 is 2.0."""
    check(*words)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(int, "12", 12), (float, "-1.5e3", -1500.0), (str, "X", "X"), (Path, "a/b", Path("a/b"))],
)
def test_a_plain_value_needs_no_typer(kind, text, value):
    """And an unusual number is not plain."""
    assert READERS[kind](text) == value
    assert READERS[int]("1_000") is READERS[float]("nan") is READERS[str]("a\nb") is None


def test_the_kind_of_a_flag_is_what_it_holds_when_it_is_given():
    """`None` is only its absence."""
    assert bare(Annotated[int | None, typer.Option()]) is int
    assert bare(Annotated[Path, typer.Option()]) is Path
    assert bare(str) is str
    assert bare(list[str] | None) == list[str]
    assert bare(int | str | None) == int | str | None


@pytest.mark.parametrize("words", [["--count", "0"], ["--count", "3"], ["--place", "no/such/file"], ["--place", "."]])
def test_what_a_flag_demands_of_its_value_is_left_to_typer(words):
    """A range, a file that exists: no flag demands it yet, and the first that does must be heard."""

    def demanding(
        count: Annotated[int, typer.Option(min=1)] = 2,
        place: Annotated[Path, typer.Option(exists=True, dir_okay=False)] = Path(__file__),
    ) -> None:
        GIVEN.update(locals())

    plain, late = typer.Typer(add_completion=False), typer.Typer(add_completion=False)
    plain.command("command")(demanding)
    late.command("command")(lambda: demanding)
    told = read(built(typer.main.get_command(late)), words)
    assert repr(told) == repr(read(typer.main.get_command(plain), words))
    assert (words[1] == "3") == isinstance(told, list), told
