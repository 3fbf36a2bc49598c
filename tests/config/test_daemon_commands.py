from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import tomli

from dsdbd.commands import HELP, Command, Invocation, parse, run_config, source_state, version_text
from dsdbd.config import Flags
from dsdbd.config.docs import render_example
from dsdbd.errors import ConfigError, UsageError
from dsdbd.version import VERSION

RUN = Invocation(Command.RUN)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", RUN),
        ("run", RUN),
        ("--", RUN),
        ("-config /f", Invocation(Command.RUN, config_path=Path("/f"))),
        ("-config=/f", Invocation(Command.RUN, config_path=Path("/f"))),
        ("--config /f", Invocation(Command.RUN, config_path=Path("/f"))),
        ("--config=/f=g", Invocation(Command.RUN, config_path=Path("/f=g"))),
        ("run -config /f", Invocation(Command.RUN, config_path=Path("/f"))),
        ("-config /f -config /g", Invocation(Command.RUN, config_path=Path("/g"))),
        ("-config=", RUN),
        ("-join a:8091,b -hostname h", Invocation(Command.RUN, flags=Flags("a:8091,b", "h"))),
        ("-join -hostname", Invocation(Command.RUN, flags=Flags("-hostname", ""))),
        ("-pidfile /run/p", Invocation(Command.RUN, pidfile=Path("/run/p"))),
        ("config", Invocation(Command.CONFIG)),
        ("config -config /f", Invocation(Command.CONFIG, config_path=Path("/f"))),
        ("config -packaged", Invocation(Command.CONFIG, packaged=True)),
        ("config --packaged=true", Invocation(Command.CONFIG, packaged=True)),
        ("config -packaged=false", Invocation(Command.CONFIG)),
        ("config -hostname h -join a", Invocation(Command.CONFIG, flags=Flags("a", "h"))),
        ("version", Invocation(Command.VERSION)),
        ("-version", Invocation(Command.VERSION)),
        ("--version", Invocation(Command.VERSION)),
        ("help", Invocation(Command.HELP)),
        ("help run", Invocation(Command.HELP)),
        ("-h", Invocation(Command.HELP)),
        ("--help", Invocation(Command.HELP)),
        ("config -h", Invocation(Command.HELP)),
        ("run -config /f -help", Invocation(Command.HELP)),
    ],
)
def test_command_lines(line: str, expected: Invocation) -> None:
    assert parse(line.split()) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x", 'unknown command "x"'),
        ("backup /tmp", 'unknown command "backup"'),
        ("restore", 'unknown command "restore"'),
        ("Run", 'unknown command "Run"'),
        ("[-join dsdb1:8091]", 'unknown command "[-join"; square brackets only mark optional words'),
        ("run dsdb1:8091]", 'run takes no argument "dsdb1:8091]"; square brackets only mark optional words'),
        ("run x", 'run takes no argument "x"'),
        ("-config /f run", 'run takes no argument "run"'),
        ("-- x", 'run takes no argument "x"'),
        ("- x", 'run takes no argument "-"'),
        ("version x", 'version takes no argument "x"'),
        ("-confg /f", "run has no flag -confg"),
        ("-packaged", "run has no flag -packaged"),
        ("config -pidfile /p", "config has no flag -pidfile"),
        ("version -config /f", "version has no flag -config"),
        ("-config", "flag needs an argument: -config"),
        ("-join a -hostname", "flag needs an argument: -hostname"),
        ("---config /f", "bad flag syntax: ---config"),
        ("-=x", "bad flag syntax: -=x"),
        ("config -packaged=maybe", 'invalid boolean value "maybe" for -packaged'),
    ],
)
def test_mistakes_on_the_command_line(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert caught.value.message.startswith(message)
    assert caught.value.message.endswith("\nRun 'dsdbd help' for usage")
    assert caught.value.exit_code == 2


def test_help_names_every_command_and_flag() -> None:
    words = [str(command) for command in Command] + ["-config", "-join", "-hostname", "-pidfile", "-packaged"]
    assert all(f"  {word} " in HELP for word in words)


def test_config_prints_what_is_in_force(tmp_path: Path) -> None:
    path = tmp_path / "dsdb.conf"
    path.write_text('[http]\nauth-enabled = true\n[meta]\ndir = "/m"\n')
    environ = {"HOME": "/home/u", "DSDB_META_DIR": "/e"}
    printed = tomli.loads(run_config(parse(["config", "-config", str(path), "-join", "a"]), environ))
    assert printed["http"]["auth-enabled"] is True
    assert printed["meta"]["dir"] == "/e"
    assert printed["data"]["dir"] == "/home/u/.dsdb/data"
    assert printed["join"] == "a:8091"
    with pytest.raises(ConfigError):
        run_config(parse(["config", "-config", str(tmp_path / "none")]), environ)


def test_config_packaged_prints_the_example_file() -> None:
    assert run_config(parse(["config", "-packaged"]), {}) == render_example()


def test_version_text() -> None:
    assert version_text() == f"DSDB v{VERSION}"
    assert version_text("main", "abc") == f"DSDB v{VERSION} (git: main abc)"


def test_the_source_state_of_a_checkout_equals_what_git_says(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert source_state(tmp_path) == ("", "")
    git("init", "-q", "-b", "feature/x")
    assert source_state(tmp_path) == ("", "")  # no commit yet
    git("commit", "-q", "--allow-empty", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert source_state(tmp_path) == ("feature/x", commit)
    git("pack-refs", "--all")
    assert source_state(tmp_path) == ("feature/x", commit)
    git("checkout", "-q", "--detach")
    assert source_state(tmp_path) == ("detached", commit)
