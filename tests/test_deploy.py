"""What deploy/ names exists: variables, extras, paths, targets, commands and flags."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from mmlab.cli.app import app
from mmlab.core.spans import Days

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()
UNIT = (DEPLOY / "mmlab-record@.service").read_text()
CRONTAB = (DEPLOY / "crontab.example").read_text()
TARGETS = ["calibration", "recorder"]
DATE = r'"$(date -u -d yesterday +\%Y\%m\%d)"'


# -- readers, as small as the files allow ------------------------------------------------------------


def under(text: str, *keys: str) -> str:
    """The value of a nested YAML key: what stands on its line, else the more indented lines below it."""
    for key in keys:
        found = re.search(rf"^( *){re.escape(key)}:[ ]*(.*)\n((?:\1 +.*\n|\n)*)", text, re.M)
        assert found, f"compose.yaml has no {' / '.join(keys)}"
        text = found[2].strip().strip('"') or found[3]
    return text


def names(text: str) -> list[str]:
    """The keys of a YAML mapping's first level."""
    indent = re.match(r" *", text)[0]
    return re.findall(rf"^{indent}([\w-]+):", text, re.M)


def stages() -> dict[str, str]:
    """Stage of the Dockerfile -> its text."""
    found = re.split(r"^FROM (\S+) AS (\S+)\n", DOCKERFILE, flags=re.M)[1:]
    return {name: f"FROM {base}\n{text}" for base, name, text in zip(*[iter(found)] * 3, strict=True)}


def entrypoint(target: str) -> list[str]:
    """The words that an image runs."""
    return re.findall(r'"([^"]+)"', re.search(r"^ENTRYPOINT (.*)$", stages()[target], re.M)[1])


def left_out(path: str) -> bool:
    """Whether .dockerignore leaves out a path or a folder above it; the last rule that matches decides."""
    parents = ["/".join(path.split("/")[: n + 1]) for n in range(path.count("/") + 1)]
    found = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            rule = re.escape(line.lstrip("!").strip("/")).replace(r"\[", "[").replace(r"\]", "]")
            rule = rule.replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
            if any(re.fullmatch(rule, parent) for parent in parents):
                found = not line.startswith("!")
    return found


def parsed(words: list[str]) -> dict[str, object]:
    """The parameters that mmlab reads from a command line; fails on a sub-command or a flag that it has not."""
    command, path = typer.main.get_command(app), "mmlab"
    assert words[0] == "mmlab"
    words = words[1:]
    while hasattr(command, "commands"):
        assert words, f"{path} needs a sub-command"
        assert words[0] in command.commands, f"{path} has no sub-command {words[0]}"
        path, command, words = f"{path} {words[0]}", command.commands[words[0]], words[1:]
    return command.make_context(path, words).params


def cron_lines() -> list[str]:
    """The lines that start something."""
    return [line for line in CRONTAB.splitlines() if re.match(r"[\d*@]", line)]


def cron_commands(line: str) -> list[list[str]]:
    """The mmlab commands of a crontab line, with a day in place of `date`."""
    parts = re.split(r"&&|\|\||[{};]|>>?", line.replace(DATE, "20250101").replace("2>&1", ""))
    return [shlex.split(part) for part in parts if part.split()[:1] == ["mmlab"]]


# -- variables, extras, paths, targets ---------------------------------------------------------------


def test_every_variable_of_the_recorder_is_one_that_mmlab_record_reads(monkeypatch):
    """And the defaults in compose.yaml are those of the command, where it has any."""
    command = typer.main.get_command(app).commands["record"]
    read = {}
    for parameter in command.params:
        envs = parameter.envvar or []
        read.update(dict.fromkeys([envs] if isinstance(envs, str) else envs, parameter.name))
        for name in read:
            monkeypatch.delenv(name, raising=False)
    given = under(COMPOSE, "services", "recorder", "environment")
    own = command.make_context("record", ["--symbol", "ETHUSDT"]).params
    for name in names(given):
        assert name in read, f"mmlab record does not read {name}"
        variable, default = re.fullmatch(r"\$\{(\w+):-(.*)\}", under(given, name)).groups()
        assert variable == name
        monkeypatch.setenv(name, default)
    assert set(re.findall(r"\b(DATA_ROOT|OUT_ROOT)=/app", stages()["runtime"])) <= read.keys()
    made = parsed([*entrypoint("recorder")])
    assert {name for name in made if made[name] != own[name]} == {"metrics_port"}


def test_every_extra_that_an_image_installs_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {stage: re.findall(r"'\.\[([\w,-]+)\]'", text) for stage, text in stages().items()}
    assert named["build-recorder"] == ["metrics"]
    assert named["build-calibration"] == ["plots"]
    missing = {extra for found in named.values() for extra in ",".join(found).split(",") if extra} - extras.keys()
    assert not missing, f"pyproject.toml has no extra {missing}"


def test_what_the_images_copy_exists_and_reaches_the_build():
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M)]
    paths = [path.rstrip("/") for words in copied for path in words]
    assert {"pyproject.toml", "README.md", "LICENSE", "src"} <= set(paths)
    for path in paths:
        assert (ROOT / path).exists(), path
    sources = [p.relative_to(ROOT).as_posix() for p in (ROOT / "src" / "mmlab").rglob("*") if p.suffix in {".py", ""}]
    for path in [*paths, *(p for p in sources if "__pycache__" not in p), "src/mmlab/py.typed"]:
        assert not left_out(path), f".dockerignore leaves out {path}"


@pytest.mark.parametrize("path", ["data/venue=synth", "out/logs", ".git/HEAD", ".venv/bin", "tests/cli", "benchmarks",
                                  "docs/tables.md", ".mypy_cache/a", "src/mmlab/__pycache__/a.pyc"])  # fmt: skip
def test_what_no_image_needs_stays_outside(path):
    assert left_out(path)


def test_images_and_services_agree():
    built = stages()
    used = {text.split()[1] for text in built.values()} | set(re.findall(r"--from=(\S+)", DOCKERFILE))
    assert sorted(built.keys() - used) == TARGETS, "a stage that nothing is built from is a target"
    assert used - built.keys() == {"python:3.12-slim"}
    services = under(COMPOSE, "services")
    assert sorted(names(services)) == TARGETS
    for target in TARGETS:
        service = under(services, target)
        assert under(service, "build", "target") == target
        assert (DEPLOY / under(service, "build", "context")).resolve() == ROOT
        assert (ROOT / under(service, "build", "dockerfile")).samefile(DEPLOY / "Dockerfile")
        mounts = dict(re.findall(r"- (\S+?):(/app/\w+)", under(service, "volumes")))
        assert mounts == {"../data": "/app/data", "../out": "/app/out"}
        for line in ("USER mmlab", 'VOLUME ["/app/data", "/app/out"]', "STOPSIGNAL SIGTERM"):
            assert line in built[target].splitlines()


def test_whoever_stops_a_recorder_gives_it_time_to_seal():
    for target in TARGETS:
        assert int(re.fullmatch(r"(\d+)s", under(COMPOSE, "services", target, "stop_grace_period"))[1]) >= 30
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.M)[1]) >= 30
    assert "\nKillSignal=SIGTERM\n" in UNIT


# -- commands ----------------------------------------------------------------------------------------


def test_the_images_run_commands_that_exist(monkeypatch):
    words = re.findall(r'"([^"]*)"', under(COMPOSE, "services", "calibration", "command"))
    words = [re.sub(r"\$\{DAY:-\}", "20250101", re.sub(r"\$\{SYMBOL:-(\w+)\}", r"\1", word)) for word in words]
    assert words[:2] == ["calibrate", "schedule"]
    assert parsed([*entrypoint("calibration"), *words])["symbol"] == "ETHUSDT"
    assert parsed([*entrypoint("recorder"), "--symbol", "ETHUSDT"])["symbol"] == "ETHUSDT"


def test_the_unit_runs_a_command_that_exists():
    program, *words = shlex.split(re.search(r"^ExecStart=(.*)$", UNIT, re.M)[1].replace("%i", "ETHUSDT"))
    assert parsed([Path(program).name, *words])["symbol"] == "ETHUSDT"
    writable = re.search(r"^ReadWritePaths=(.*)$", UNIT, re.M)[1]
    assert f"\nWorkingDirectory={writable}\n" in UNIT, "data/ and out/ lie in the working directory"


def test_the_crontab_runs_commands_that_exist():
    found = [words for line in cron_lines() for words in cron_commands(line)]
    assert {"record", "check", "calibrate"} == {words[1] for words in found}
    assert len(found) == sum(len(re.findall(r"\bmmlab [a-z]", line)) for line in cron_lines())
    for words in found:
        made = parsed(words)
        if "--day" in words:
            Days.parse(str(made["day"]))


def test_the_crontab_is_one_that_cron_reads_as_it_is_meant():
    """Before the first line Berlin's time is set; no percent sign ends a command; the recorder's run ends by itself."""
    assert CRONTAB.index("\nCRON_TZ=Europe/Berlin\n") < CRONTAB.index(cron_lines()[0])
    assert CRONTAB.endswith("\n"), "cron does not read a last line without an end"
    for line in cron_lines():
        assert not re.search(r"(?<!\\)%", line), line
    start = next(line for line in cron_lines() if "mmlab record" in line)
    assert start.startswith("55 7 * * 1-5 ")
    made = parsed(cron_commands(start)[0])
    assert (made["window"], made["tz"]) == ("08:00-22:00", "Europe/Berlin")
    assert made["duration_s"] > 14 * 3600 + 300, "the window's end must come first"


@pytest.mark.parametrize("words", ["mmlab nothing", "mmlab calibrate nothing", "mmlab record --symbol A --nothing"])
def test_a_command_that_does_not_exist_would_be_found(words):
    with pytest.raises(Exception, match=r"(?i)no such option|has no sub-command"):
        parsed(words.split())


@pytest.mark.parametrize("path", [*sorted(DEPLOY.iterdir()), ROOT / ".dockerignore"], ids=lambda p: p.name)
def test_each_file_says_its_job_first(path):
    assert re.match(r"# \w.{20,}", path.read_text())
