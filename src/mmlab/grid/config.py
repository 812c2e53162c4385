"""What a run is told, as TOML in three groups: [strategy], [backtest] and [optimizer]; unknown keys are errors."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from mmlab.core.errors import UsageError
from mmlab.core.instrument import positive_decimal
from mmlab.core.intervals import parse_interval
from mmlab.core.spans import parse_day
from mmlab.grid.params import GridParams, VenueParams, from_mapping, param

QUOTES = ("USDT", "USDC", "FDUSD", "BUSD")  # what ends a symbol that is given without a slash
LOOK_AHEAD = "look-ahead: for comparison only"  # what every output of `peer` fills is labelled with
INFERRED = "auto"
GROUPS = ("strategy", "backtest", "optimizer")


@dataclass(frozen=True)
class BacktestParams(VenueParams):
    """Which coins, when, on which candles, and what the venue demands; raises UsageError for what cannot be meant."""

    tick_size: str = param(INFERRED, "price step; auto: the coarsest that all prices of the bars lie on; 0: none")
    coins: tuple[str, ...] = field(default=("BTC",), metadata={"doc": "coins; BTC means BTCUSDT"})
    start: str = param("2024-01-01", "first day, UTC; empty: where the data begin")
    end: str = param("", "last day, UTC, inclusive; empty: where the data end")
    timeframe: str = param("15m", "length of a bar")
    intrabar: str = param("", "1m: what happens inside a bar is told by its 1-minute bars, where the lake has them")
    venue: str = param("", "needed only if two venues have the symbol")
    no_short: bool = param(False, "trade the long side only, whatever allow_short says")

    def __post_init__(self) -> None:
        if isinstance(self.coins, list):  # as TOML gives it
            object.__setattr__(self, "coins", tuple(self.coins))
        named = isinstance(self.coins, tuple) and all(isinstance(coin, str) for coin in self.coins)
        if not named or not self.coins:
            raise UsageError(f"coins is {self.coins!r}", remedy='name at least one, like ["BTC", "ETH"]')
        super().__post_init__()
        symbols = self.symbols
        if len(set(symbols)) < len(symbols):
            raise UsageError(f"coins {', '.join(self.coins)} name one twice", remedy="name each coin once")
        parse_interval(self.timeframe)
        for name, step in (("tick_size", self.tick_size), ("lot_size", self.lot_size)):
            if step not in {"0", INFERRED if name == "tick_size" else "0"}:
                positive_decimal(step, name)
        if self.intrabar not in {"", "1m"}:
            raise UsageError(f"--intrabar is {self.intrabar!r}", remedy="give 1m, or leave it out")
        first, last = (day_of(text, flag) for text, flag in ((self.start, "--start"), (self.end, "--end")))
        if first and last and last < first:
            raise UsageError(f"--start {self.start} lies after --end {self.end}", remedy="give the earlier day first")

    @property
    def symbols(self) -> tuple[str, ...]:
        """The coins as the venue writes them."""
        return tuple(symbol_of(coin) for coin in self.coins)

    @property
    def look_ahead(self) -> bool:
        """True if orders are filled by a past that they could not know."""
        return self.fills == "peer"

    def at_venue(self, tick_size: str) -> VenueParams:
        """What the engine is told, with the tick size that `auto` turned out to be."""
        tick = tick_size if self.tick_size == INFERRED else self.tick_size
        return VenueParams(tick, self.lot_size, self.min_notional, self.liquidation_fee, self.fills)


@dataclass(frozen=True)
class Config:
    """All that a run is told."""

    strategy: GridParams = field(default_factory=GridParams)
    backtest: BacktestParams = field(default_factory=BacktestParams)
    optimizer: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def params(self) -> GridParams:
        """The strategy's parameters, with `no_short` in them."""
        return dataclasses.replace(self.strategy, allow_short=False) if self.backtest.no_short else self.strategy

    def with_values(self, given: Mapping[str, Any], where: str) -> Config:
        """With other values by name, of [strategy] or [backtest]; raises UsageError for a name that neither has."""
        groups: dict[str, dict[str, Any]] = {"strategy": {}, "backtest": {}}
        for name, value in given.items():
            group = next((g for g in groups if name in names(getattr(self, g))), None)
            if group is None:
                known = ", ".join([*names(self.strategy), *names(self.backtest)])
                raise UsageError(f"{where}: unknown {name}", remedy=f"known: {known}")
            groups[group][name] = value
        made = {
            group: from_mapping(type(old), {**values_of(old), **values}, where) if values else old
            for group, values in groups.items()
            for old in [getattr(self, group)]
        }
        return dataclasses.replace(self, **made)


def parse(text: str, where: str) -> Config:
    """A config from TOML; `where` names the file. Raises UsageError naming the file and the key that is wrong."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}", remedy="see mmlab grid config for an example") from None
    unknown = sorted(set(content) - set(GROUPS))
    if unknown:
        raise UsageError(f"{where}: unknown {', '.join(unknown)}", remedy=f"the groups are {', '.join(GROUPS)}")
    for group in GROUPS:
        if not isinstance(content.get(group, {}), dict):
            raise UsageError(f"{where}: {group} is no group", remedy=f"begin it with a line [{group}]")
    return Config(
        from_mapping(GridParams, content.get("strategy", {}), f"{where} [strategy]"),
        from_mapping(BacktestParams, content.get("backtest", {}), f"{where} [backtest]"),
        search_space(content.get("optimizer", {}), f"{where} [optimizer]"),
    )


def search_space(given: Mapping[str, Any], where: str) -> dict[str, Mapping[str, Any]]:
    """Ranges to search, by parameter: {low, high} or {choices}; raises UsageError for anything else."""
    known = names(GridParams())
    for name, span in given.items():
        if name not in known:
            raise UsageError(f"{where}: unknown {name}", remedy=f"known: {', '.join(known)}")
        if not isinstance(span, dict) or set(span) not in ({"low", "high"}, {"choices"}):
            raise UsageError(
                f"{where}: {name} is {span!r}", remedy="write { low = 0.1, high = 2.0 } or { choices = [2, 4] }"
            )
    return dict(given)


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """`gamma=0.3` as names and values, by TOML's rules, plain words taken for text; raises UsageError."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"--set is {text!r}", remedy="write it as name=value, like gamma=0.3")
        try:
            found[name] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            found[name] = value.strip()
    return found


def default_toml() -> str:
    """The defaults of every parameter as TOML, with what each does beside it."""
    lines = ["# The grid's parameters and their defaults; a line that is left out keeps its default.", ""]
    for group, spec in (("strategy", GridParams()), ("backtest", BacktestParams())):
        lines.append(f"[{group}]")
        rows = [(f"{each.name} = {toml(getattr(spec, each.name))}", each.metadata["doc"]) for each in fields(spec)]
        width = max(len(row) for row, _ in rows)
        lines += [*(f"{row:{width}}  # {doc}" for row, doc in rows), ""]
    lines += [
        "[optimizer]  # what `mmlab grid optimize` searches; without a line here its own ranges",
        "# gamma = { low = 0.3, high = 2.0 }",
        '# grid_mode = { choices = ["geometric", "arithmetic"] }',
    ]
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return f"[{', '.join(toml(each) for each in value)}]"
    return repr(value)


def symbol_of(coin: str) -> str:
    """`BTC`, `btc/usdt`, `BTC/USDT:USDT` and `BTCUSDT` are all BTCUSDT; raises UsageError for an empty name."""
    text = coin.strip().upper().partition(":")[0]
    base, slash, quote = text.partition("/")
    if not base or not base.isalnum() or (slash and not quote.isalnum()):
        raise UsageError(f"coin {coin!r} is no name", remedy="write it as BTC, BTCUSDT or BTC/USDT")
    if slash:
        return base + quote
    whole = any(base.endswith(quote) and base != quote for quote in QUOTES)
    return base if whole else base + QUOTES[0]


def day_of(text: str, flag: str) -> date | None:
    """A day, None for no text; raises UsageError naming the flag."""
    try:
        return parse_day(text) if text else None
    except UsageError:
        raise UsageError(f"{flag} is {text!r}", remedy="write a day as 2024-01-31") from None


def coin_of(symbol: str) -> str:
    """`BTC` of BTCUSDT, for titles and file names; symbols in other currencies keep their whole name."""
    return symbol.removesuffix(QUOTES[0]) or symbol


def fields(spec: Any) -> list[dataclasses.Field[Any]]:
    """A group's fields in the order in which they are shown: those that are set most often first."""
    return sorted(dataclasses.fields(spec), key=lambda each: isinstance(spec, VenueParams) and each.name in VENUE)


def names(spec: Any) -> list[str]:
    """Names of a group's fields."""
    return [each.name for each in dataclasses.fields(spec)]


def values_of(spec: Any) -> dict[str, Any]:
    """Names and values of a group."""
    return {each.name: getattr(spec, each.name) for each in dataclasses.fields(spec)}


VENUE = tuple(names(VenueParams()))
