"""The Debian package: what is in it, and its life on a machine without systemd."""

from __future__ import annotations

import grp
import pwd
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.packaging.machine import PROGRAMS, REPOSITORY, InstalledPackage, answers, daemon_pids, run, wait_until

PING = "http://127.0.1.1:8088/ping"
SETTINGS = """\
DSDB_BIND_ADDRESS="127.0.1.1:8088"
DSDB_META_BIND_ADDRESS="127.0.1.1:8088"
DSDB_META_HTTP_BIND_ADDRESS="127.0.1.1:8091"
DSDB_HTTP_BIND_ADDRESS="127.0.1.1:8088"
DSDB_HTTP_ALIAS_BIND_ADDRESS="127.0.1.1:8086"
DSDB_HOSTNAME="127.0.1.1"
"""
CONFFILES = {"/etc/default/dsdb", "/etc/dsdb/dsdb.conf", "/etc/init.d/dsdb", "/etc/logrotate.d/dsdb"}

whole_program = pytest.mark.skipif(
    not all((REPOSITORY / path).exists() for path in ("dsdbd/main.py", "dsdb_cli/main.py")),
    reason="this tree has no dsdbd/main.py or no dsdb_cli/main.py",
)


@pytest.fixture(scope="module")
def members(built_deb: Path) -> dict[str, tarfile.TarInfo]:
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", built_deb], stdout=subprocess.PIPE) as unpack,
        tarfile.open(fileobj=unpack.stdout, mode="r|") as archive,
    ):
        return {member.name.removeprefix("."): member for member in archive}


def test_the_package_names_what_it_is(built_deb: Path) -> None:
    fields = dict(
        line.split(": ", 1) for line in run("dpkg-deb", "--field", built_deb).stdout.splitlines() if ": " in line
    )
    assert built_deb.name == f"dsdb_{fields['Version']}_{fields['Architecture']}.deb"
    assert f'"{fields["Version"]}"' in (REPOSITORY / "dsdbd" / "version.py").read_text()
    python = run("/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
    assert f"python3 (>= {python})" in fields["Depends"]
    assert set(run("dpkg-deb", "--info", built_deb, "conffiles").stdout.split()) == CONFFILES


def test_every_file_belongs_to_root_and_is_writable_by_nobody_else(members: dict[str, tarfile.TarInfo]) -> None:
    assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}
    assert [name for name, member in members.items() if not member.issym() and member.mode & 0o022] == []
    assert {name for name in members if name.startswith("/etc/") and members[name].isfile()} == CONFFILES
    programs = [members[str(path)].mode for path in (*PROGRAMS, Path("/etc/init.d/dsdb"))]
    assert programs == [0o755] * 3
    assert len({member.mtime for member in members.values()}) == 1


def test_only_what_runs_is_inside(members: dict[str, tarfile.TarInfo]) -> None:
    library = [name.removeprefix("/usr/lib/dsdb/") for name in members if name.startswith("/usr/lib/dsdb/")]
    unwanted = re.compile(r"(^|/)tests/|/RECORD$|direct_url\.json$|\.pyx$|\.pxd$|\.h$|arrow_flight|arrow_s3")
    assert [name for name in library if unwanted.search(name)] == []
    sources = {name for name in library if name.endswith(".py")}
    for root in ("dsdbd", "dsdb_cli"):
        own = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / root).rglob("*.py")}
        assert own == {name for name in sources if name.startswith(root + "/")}
    assert sum(member.size for member in members.values()) < 250 << 20


def test_no_file_names_the_machine_that_built_it(built_deb: Path, tmp_path: Path) -> None:
    run("dpkg-deb", "--extract", built_deb, tmp_path)
    found = run("grep", "-rlF", str(REPOSITORY), tmp_path, check=False)
    assert (found.returncode, found.stdout) == (1, "")


def test_installing_starts_and_enables_nothing(installed_package: InstalledPackage) -> None:
    assert "DSDB is installed and not started. Start it: service dsdb start" in installed_package.install_output
    assert daemon_pids() == []
    assert installed_package.service("status", check=False).returncode == 3
    assert list(Path("/etc").glob("rc?.d/*dsdb*")) == []
    assert list(Path("/etc/systemd/system").glob("**/dsdb*")) == []
    account = pwd.getpwnam("dsdb")
    assert account.pw_shell.endswith("nologin")
    assert grp.getgrgid(account.pw_gid).gr_name == "dsdb"
    for path, mode in {"/var/lib/dsdb": 0o750, "/var/log/dsdb": 0o750, "/var/log/dsdb/dsdb.log": 0o640}.items():
        found = Path(path).stat()
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (mode, account.pw_uid, account.pw_gid)
    assert Path("/var/log/dsdb/dsdbd.log").readlink() == Path("dsdb.log")
    assert Path("/etc/dsdb/dsdb.conf").read_bytes() == (REPOSITORY / "etc" / "dsdb.conf.example").read_bytes()


@whole_program
def test_commands_ignore_the_environment(installed_package: InstalledPackage, tmp_path: Path) -> None:
    (tmp_path / "dsdbd").mkdir()
    (tmp_path / "dsdbd" / "__init__.py").write_text("raise SystemExit('the wrong program ran')")
    result = subprocess.run(
        [PROGRAMS[0], "version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin", "HOME": str(tmp_path)},
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("DSDB v")
    assert installed_package.service("version").stdout == result.stdout


@whole_program
def test_the_life_of_the_service(installed_package: InstalledPackage) -> None:
    service, settings = installed_package.service, Path("/etc/default/dsdb")
    settings.write_text(SETTINGS)
    with Path("/etc/dsdb/dsdb.conf").open("a") as configuration:
        configuration.write("# changed by the administrator\n")
    changed = Path("/etc/dsdb/dsdb.conf").read_text()

    service("start")
    wait_until(lambda: answers(PING))
    first = installed_package.pid()
    assert daemon_pids() == [first]
    state = Path(f"/proc/{first}/status").read_text()
    assert re.search(rf"^Uid:\s+{pwd.getpwnam('dsdb').pw_uid}\b", state, re.MULTILINE)
    # 65536 files, or what a container allows.
    limits = Path(f"/proc/{first}/limits").read_text()
    files = re.search(r"^Max open files\s+(\d+)\s+(\d+)", limits, re.MULTILINE)
    assert files is not None
    assert int(files[1]) == 65536 or files[1] == files[2]
    assert service("status").returncode == 0

    service("restart")
    wait_until(lambda: answers(PING))
    second = installed_package.pid()
    assert daemon_pids() == [second]
    assert second != first

    # Installing over a running service keeps what was changed and leaves it running, on the new files.
    output = installed_package.install()
    assert "not started" not in output
    wait_until(lambda: answers(PING))
    assert installed_package.pid() != second
    assert settings.read_text() == SETTINGS
    assert Path("/etc/dsdb/dsdb.conf").read_text() == changed

    service("stop")
    assert daemon_pids() == []
    assert not answers(PING)
    assert service("status", check=False).returncode == 3
    # Over a stopped one it starts nothing.
    installed_package.install()
    assert daemon_pids() == []

    service("start")
    assert len(daemon_pids()) == 1
    run("dpkg", "--remove", "dsdb")
    assert daemon_pids() == []
    assert not any(path.exists() for path in PROGRAMS)
    assert not Path("/usr/lib/dsdb").exists()
    assert Path("/etc/dsdb/dsdb.conf").read_text() == changed
    kept = Path("/var/lib/dsdb/kept")
    kept.write_text("")
    assert Path("/var/log/dsdb/dsdb.log").exists()

    run("dpkg", "--purge", "dsdb")
    for path in ("/etc/dsdb", "/etc/default/dsdb", "/etc/init.d/dsdb", "/var/lib/dsdb", "/var/log/dsdb", "/run/dsdb"):
        assert not Path(path).exists(), path
