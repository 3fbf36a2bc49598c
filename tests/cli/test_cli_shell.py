"""The shell as a process against a real server, and against InfluxDB's own shell where formats are to be equal."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from dsdbd.version import VERSION

pytestmark = [pytest.mark.slow, pytest.mark.debian]

POINTS = """\
cpu,host=a,r=e v=1,s="x,y \\"q\\" <&>",b=true,i=5i 1
cpu,host=b,r=w v=1000000000,i=9007199254740993i 2
mem u=2.7e-5 3
"""


def influx(port: int, *words: str) -> str:
    program = shutil.which("influx")
    if program is None:
        pytest.skip("influx is not installed")
    command = [program, "-host", "127.0.0.1", "-port", str(port), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout


@pytest.mark.parametrize("output_format", ["csv", "json"])
@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM cpu",
        "SELECT * FROM mem",
        "SHOW SERIES",
        "SHOW MEASUREMENTS; SHOW TAG KEYS FROM cpu",
        "SHOW USERS",
        "SELECT * FROM cpu WHERE time < 0",
        "SELECT v, s FROM cpu WHERE host = 'a' GROUP BY host, r",
        "SELECT nope(v) FROM cpu",
        "SELECT mean(v) FROM cpu WHERE time >= 0 AND time < 5 GROUP BY time(2ns)",
    ],
)
def test_formats_equal_influx(influxd: Any, dsdb: Any, database: str, query: str, output_format: str) -> None:
    influxd.write(database, POINTS)
    words = ("-database", database, "-format", output_format, "-execute", query)
    ours = dsdb("-port", influxd.port, *words).stdout
    theirs = influx(influxd.port, *words)
    if output_format == "json":
        # Their error line after the document makes it no JSON; ours goes to standard error.
        theirs = "".join(line + "\n" for line in theirs.splitlines() if not line.startswith("ERR: "))
    assert ours == theirs
    assert ours or "time < 0" in query


def test_pretty_json_equals_influx(influxd: Any, dsdb: Any, database: str) -> None:
    influxd.write(database, POINTS)
    words = ("-database", database, "-format", "json", "-pretty", "-execute", "SELECT * FROM cpu; SHOW USERS")
    assert dsdb("-port", influxd.port, *words).stdout == influx(influxd.port, *words)


def test_csv_of_many_series_and_of_many_chunks_equals_influx(influxd: Any, dsdb: Any, database: str) -> None:
    influxd.write(database, POINTS + "".join(f"big v={number}i {number}\n" for number in range(25_000)))
    words = ("-database", database, "-format", "csv", "-execute", "SELECT * FROM cpu GROUP BY *; SELECT v FROM big")
    ours = dsdb("-port", influxd.port, *words).stdout
    assert ours == influx(influxd.port, *words)
    assert ours.count("\n") == 4 + 25_001


def test_a_chunked_series_is_one_series(influxd: Any, dsdb: Any, database: str) -> None:
    influxd.write(database, "".join(f"big v={number}i {number}\n" for number in range(25_000)))
    done = dsdb("-port", influxd.port, "-database", database, "-format", "json", "-execute", "SELECT v FROM big")
    (result,) = json.loads(done.stdout)["results"]
    (series,) = result["series"]
    assert series["values"] == [[number, number] for number in range(25_000)]


def test_column_format(influxd: Any, dsdb: Any, database: str) -> None:
    influxd.write(database, POINTS)
    done = dsdb("-port", influxd.port, "-database", database, "-execute", "SELECT v, i FROM cpu GROUP BY host")
    assert done.stdout == (
        "name: cpu\ntags: host=a\ntime\tv\ti\n----\t-\t-\n1\t1\t5\n\n"
        "name: cpu\ntags: host=b\ntime\tv\t\ti\n----\t-\t\t-\n2\t1000000000\t9007199254740993\n\n"
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_precision(influxd: Any, dsdb: Any, database: str) -> None:
    influxd.write(database, "cpu v=1 60000000001")
    for precision, shown in [("rfc3339", "1970-01-01T00:01:00.000000001Z"), ("m", "1"), ("ns", "60000000001")]:
        words = ("-database", database, "-format", "csv", f"-precision={precision}")
        done = dsdb("-port", influxd.port, *words, "-execute", "SELECT * FROM cpu")
        assert done.stdout.splitlines()[1] == f"cpu,{shown},1"


def test_getting_started(influxd: Any, dsdb: Any, database: str) -> None:
    script = f"""
        use {database}
        INSERT cpu,host=serverA,region=us_west value=0.64 1
        SELECT host, region,
               value
          FROM cpu
        insert into autogen mem value=1 2
        settings
        exit
        use nothing
    """
    done = dsdb("-host", f"127.0.0.1:{influxd.port}", stdin=script)
    assert done.stdout == (
        f"Using database {database}\n"
        "name: cpu\n---------\ntime\thost\tregion\tvalue\n1\tserverA\tus_west\t0.64\n\n"
        "Using retention policy autogen\n"
        f"Host\t\t\t127.0.0.1:{influxd.port}\nUsername\t\t\nDatabase\t\t{database}\nPretty\t\t\tfalse\n"
        "Format\t\t\tcolumn\nWrite Consistency\tany\n\n"
    )
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("line", "output"),
    [
        ("use nope", "ERR: Database nope doesn't exist. Run SHOW DATABASES for a list of existing databases.\n"),
        ("use", 'Could not parse database name from "use".\n'),
        ("format x", 'Unknown format "x". Please use json, csv, or column.\n'),
        ("precision x", 'Unknown precision "x". Please use rfc3339, h, m, s, ms, u or ns.\n'),
        ("consistency x", 'Unknown consistency level "x". Please use any, one, quorum, or all.\n'),
        ("chunk size x", 'unable to parse chunk size from "x"\n'),
        (
            "insert cpu v=1",
            (
                'ERR: {"error":"database is required"}\n\n'
                "Note: error may be due to not setting a database or retention policy.\n"
                'Please set a database with the command "use <database>" or\n'
                "INSERT INTO <database>.<retention-policy> <point>\n"
            ),
        ),
        (
            "SELECT v FROM cpu",
            (
                "ERR: database name required\n"
                "Warning: It is possible this error is due to not setting a database.\n"
                'Please set a database with the command "use <database>".\n'
            ),
        ),
        (
            "connect 127.0.0.1:1",
            (
                "Failed to connect to http://127.0.0.1:1: connection refused\n"
                "Please check your connection settings and ensure 'dsdbd' is running.\n"
            ),
        ),
    ],
)
def test_failures_are_explained_and_end_with_status_1(influxd: Any, dsdb: Any, line: str, output: str) -> None:
    done = dsdb("-port", influxd.port, "-execute", f"{line}\nSHOW DATABASES")
    assert (done.stdout, done.returncode) == (output, 1)
    assert done.stderr


@pytest.mark.parametrize(
    ("lines", "output"),
    [
        ("pretty\npretty", "Pretty print enabled\nPretty print disabled\n"),
        ("chunked\nchunked", "chunked responses disabled\nchunked responses enabled\n"),
        ("chunk size 5", "chunk size set to 5\n"),
        ("format csv\nformat column\nprecision s\nconsistency all\nhistory", ""),
        ("clear db\nclear rp", "database context cleared\nretention policy context cleared\n"),
    ],
)
def test_commands_that_set(influxd: Any, dsdb: Any, lines: str, output: str) -> None:
    done = dsdb("-port", influxd.port, "-execute", lines)
    assert (done.stdout, done.stderr, done.returncode) == (output, "", 0)


def test_help_and_gopher(influxd: Any, dsdb: Any) -> None:
    done = dsdb("-port", influxd.port, "-execute", "help\ngopher\nclear")
    for words in ("insert into [<db>.]<rp> <point>", "d s d b", "forget the database"):
        assert words in done.stdout


def test_use_with_a_retention_policy(influxd: Any, dsdb: Any, database: str) -> None:
    lines = f'use "{database}"."autogen"\nuse {database}.nope'
    done = dsdb("-port", influxd.port, "-execute", lines)
    assert done.stdout.splitlines() == [
        f"Using database {database}",
        "Using retention policy autogen",
        f"Using database {database}",
        (
            f'ERR: RETENTION POLICY nope doesn\'t exist. Run SHOW RETENTION POLICIES ON "{database}" for a list of '
            "existing retention policies."
        ),
    ]
    assert done.returncode == 1


def test_a_rejected_point_shows_the_servers_words(influxd: Any, dsdb: Any, database: str) -> None:
    done = dsdb("-port", influxd.port, "-database", database, "-execute", "insert bad")
    assert done.stdout == 'ERR: {"error":"unable to parse \'bad\': missing fields"}\n'
    assert done.returncode == 1


def test_authentication(influxd_auth: Any, dsdb: Any) -> None:
    def run(words: str, *flags: str, environ: dict[str, str] | None = None) -> Any:
        return dsdb("-port", influxd_auth.port, *flags, "-execute", words, environ=environ)

    assert run("CREATE USER todd WITH PASSWORD 'a b' WITH ALL PRIVILEGES").returncode == 0
    refused = run("SHOW DATABASES")
    assert refused.returncode == 1
    assert refused.stdout.startswith("ERR: unable to parse authentication credentials\nGive a user name and password")
    assert run("SHOW DATABASES", "-username", "todd", "-password", "wrong").stdout.startswith("ERR: authorization")
    assert run("SHOW DATABASES", "-username=todd", "-password=a b").returncode == 0
    assert run("SHOW DATABASES", environ={"DSDB_USERNAME": "todd", "DSDB_PASSWORD": "a b"}).returncode == 0
    assert run("auth todd a b\nSHOW DATABASES").returncode == 0
    asked = run("auth todd")
    assert asked.stdout == "auth needs a user name and a password here: auth <user> <password>\n"
    assert asked.returncode == 1


def test_version_and_help_need_no_server(dsdb: Any) -> None:
    assert dsdb("-version").stdout == f"DSDB shell version {VERSION}\n"
    for flag in ("-h", "--help"):
        done = dsdb(flag)
        assert done.stdout.startswith("Usage of dsdb:")
        assert done.returncode == 0
    wrong = dsdb("-nope")
    assert (wrong.stderr, wrong.returncode) == (
        "flag provided but not defined: -nope\nRun 'dsdb -help' for usage.\n",
        2,
    )


def test_a_closed_pipe_ends_quietly(influxd: Any, dsdb: Any, database: str, shell_environment: Any) -> None:
    influxd.write(database, "".join(f"big v={number}i {number}\n" for number in range(25_000)))
    import sys

    words = f"-port {influxd.port} -database {database} -execute 'SELECT v FROM big'"
    command = f"{sys.executable} -m dsdb_cli.main {words} | head -1"
    done = subprocess.run(command, shell=True, env=shell_environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("name: big\n", "")


def test_an_encoding_without_the_characters(influxd: Any, dsdb: Any, database: str) -> None:
    influxd.write(database, 'm s="é€" 1')
    done = dsdb("-port", influxd.port, "-database", database, "-format", "csv", "-execute", "SELECT s FROM m")
    assert done.stdout.splitlines()[1] == "m,1,é€"
    words = ("-port", influxd.port, "-database", database, "-execute", "SELECT s FROM m")
    assert dsdb(*words, "-format=csv", environ={"PYTHONIOENCODING": "ascii"}).stdout.splitlines()[1:] == [
        "m,1,\\xe9\\u20ac"
    ]
