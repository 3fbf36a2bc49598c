"""The files other programs read: unit, log rotation, accounts, settings, scripts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
UNIT = PACKAGING / "systemd" / "dsdb.service"
SHELL_SCRIPTS = [
    *(PACKAGING / path for path in ("init.d/dsdb", "deb/build.sh", "deb/postinst", "deb/prerm", "deb/postrm")),
    PACKAGING.parent / ".ci" / "run",
]

needs = {
    program: pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")
    for program in ("systemd-analyze", "systemd-sysusers", "systemd-tmpfiles", "logrotate", "shellcheck")
}


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]


@pytest.mark.debian
@needs["systemd-analyze"]
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    # The check wants the program to exist, so the unit is checked with one that does.
    unit = tmp_path / "dsdb.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/dsdbd", "/bin/true"))
    result = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=one", unit)
    complaints = [line for line in (result.stdout + result.stderr).splitlines() if "dsdb" in line]
    assert (result.returncode, complaints) == (0, [])


@pytest.mark.debian
@needs["systemd-analyze"]
def test_the_daemon_is_confined() -> None:
    result = run("systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", UNIT)
    level = re.search(r"exposure level for dsdb.service: ([\d.]+)", result.stdout)
    assert level, result.stdout + result.stderr
    assert float(level[1]) <= 3.0
    assert result.returncode == 0


def test_a_start_that_cannot_help_is_not_repeated() -> None:
    from dsdbd import errors

    repeated = {errors.StorageFull.exit_code, errors.AddressError.exit_code}
    final = {kind.exit_code for kind in errors.StartError.__subclasses__()} - repeated
    line = re.search(r"^RestartPreventExitStatus=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert line is not None
    assert {int(word) for word in line[1].split()} == final


def test_options_are_split_into_words() -> None:
    line = re.search(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert line is not None
    assert line[1] == "/usr/bin/dsdbd -config /etc/dsdb/dsdb.conf $INFLUXD_OPTS $DSDB_OPTS $DSDBD_OPTS"


@pytest.mark.debian
@needs["logrotate"]
def test_logrotate_accepts_its_file(tmp_path: Path) -> None:
    # The account and the directory exist only where the package is installed.
    log = tmp_path / "dsdb.log"
    log.write_text("line\n")
    text = (PACKAGING / "logrotate" / "dsdb").read_text()
    assert "su dsdb dsdb" in text
    rules = tmp_path / "dsdb"
    rules.write_text(text.replace("su dsdb dsdb\n", "\n").replace("/var/log/dsdb/", f"{tmp_path}/"))
    rules.chmod(0o644)
    result = run("logrotate", "--debug", "--state", tmp_path / "state", rules)
    assert result.returncode == 0, result.stderr
    assert "error" not in result.stderr.lower()
    forced = run("logrotate", "--force", "--state", tmp_path / "state", rules)
    assert forced.returncode == 0, forced.stderr
    assert log.read_text() == ""
    assert [path.suffix for path in tmp_path.glob("dsdb.log-*")] == [".gz"]


@pytest.mark.debian
@pytest.mark.root
@needs["systemd-sysusers"]
@needs["systemd-tmpfiles"]
@pytest.mark.skipif(os.getuid() != 0, reason="needs root to make accounts in a tree")
def test_account_and_directories_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    sysusers = run("systemd-sysusers", f"--root={tmp_path}", PACKAGING / "sysusers.d" / "dsdb.conf")
    assert sysusers.returncode == 0, sysusers.stderr
    accounts = (tmp_path / "etc" / "passwd").read_text()
    entry = re.search(r"^dsdb:x:(\d+):(\d+):.*:/var/lib/dsdb:.*nologin$", accounts, re.MULTILINE)
    assert entry is not None
    tmpfiles = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", PACKAGING / "tmpfiles.d" / "dsdb.conf")
    assert tmpfiles.returncode == 0, tmpfiles.stderr
    for name, mode in {"run/dsdb": 0o755, "var/lib/dsdb": 0o750, "var/log/dsdb": 0o750}.items():
        found = (tmp_path / name).stat()
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (mode, int(entry[1]), int(entry[2]))
    assert (tmp_path / "var/log/dsdb/dsdbd.log").resolve() == tmp_path / "var/log/dsdb/dsdb.log"


def test_the_settings_file_changes_nothing_by_itself() -> None:
    text = (PACKAGING / "default" / "dsdb").read_text()
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == []
    result = run("sh", "-c", '. ./dsdb; echo "$INFLUXD_OPTS"', cwd=PACKAGING / "default")
    assert (result.returncode, result.stdout, result.stderr) == (0, "\n", "")


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shell_scripts_parse(script: Path) -> None:
    shell = script.read_text().splitlines()[0].removeprefix("#!")
    assert shell in ("/bin/sh", "/bin/bash", "/usr/bin/env bash")
    result = run(*shell.split(), "-n", script)
    assert (result.returncode, result.stderr) == (0, "")
    assert os.access(script, os.X_OK)


@needs["shellcheck"]
@pytest.mark.debian
@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shellcheck_finds_nothing(script: Path) -> None:
    result = run("shellcheck", script)
    assert result.returncode == 0, result.stdout
