"""Dialogues with a server over HTTP, written as text: requests, and the answers a server must give.

A step starts with ``--- what it shows`` and goes on with these lines:

    POST /write?db=d      the request line; blanks in the URL are percent-encoded
    q = SHOW DATABASES    a parameter: of the URL, in a POST to /query of the form
    Accept: text/csv      a header
    > cpu value=1         a line of the body (without the line end after the last one)
    @gzip                 pack the body; @multipart sends the parameters as multipart/form-data
    @ours                 not for influxd
    differs: reason       influxd answers otherwise, on purpose
    < 204                 the status, then headers (< Name: value) and the body's lines (<| text)
    < code parse_error    the stable code of the error, in a header that influxd does not have

``python -m tests.http.dialogue FILE…`` writes the answers of the running influxd into the files (of our daemon where a
step differs); read the change before you commit it.
"""

from __future__ import annotations

import gzip
import http.client
import json
import re
import struct
import sys
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

DIRECTORY = Path(__file__).parent / "dialogues"
_HEADERS = ("Content-Type", "Content-Encoding", "X-Influxdb-Error", "WWW-Authenticate", "Allow")
_BOUNDARY = "c0ffee"
_SAFE = "/?&=%:,;.+-_~*()'$!@"


@dataclass(frozen=True)
class Reply:
    """An answer in the form of the files; ``code`` is apart because influxd has none."""

    lines: tuple[str, ...]
    code: str = ""


@dataclass
class Step:
    title: str
    method: str
    target: str
    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    differs: str = ""
    expected: list[str] = field(default_factory=list)
    code: str = ""
    source: list[str] = field(default_factory=list)


def read_dialogue(path: Path) -> list[Step]:
    steps: list[Step] = []
    for number, line in enumerate(path.read_text().split("\n"), 1):
        if line.startswith("--- "):
            steps.append(Step(line[4:], "", ""))
            continue
        if not line or line.startswith("#"):
            continue
        assert steps, f"{path.name}:{number}: no step yet"
        _read_line(steps[-1], line, f"{path.name}:{number}")
    return steps


def _read_line(step: Step, line: str, where: str) -> None:
    if line.startswith("< code "):
        step.code = line[7:]
        return
    if line.startswith("<"):
        step.expected.append(line)
        return
    step.source.append(line)
    if not step.method:
        step.method, _, step.target = line.partition(" ")
    elif line.startswith(">"):
        step.body.append(line[2:])
    elif line.startswith("@"):
        step.flags.add(line[1:])
    elif line.startswith("differs: "):
        step.differs = line[9:]
    elif found := re.fullmatch(r"([a-z_]+) = (.*)", line):
        step.params[found[1]] = found[2]
    elif found := re.fullmatch(r"([A-Za-z-]+): (.*)", line):
        step.headers[found[1]] = found[2]
    else:
        raise AssertionError(f"{where}: cannot read {line!r}")


def ask(step: Step, address: str) -> Reply:
    """Send a step's request to ``host:port``."""
    headers = dict(step.headers)
    target = urllib.parse.quote(step.target, safe=_SAFE)
    body: bytes | None = "\n".join(step.body).encode() if step.body else None
    if step.params and step.method == "POST" and step.target.startswith("/query"):
        if "multipart" in step.flags:
            parts = [
                f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
                for key, value in step.params.items()
            ]
            body = ("".join(parts) + f"--{_BOUNDARY}--\r\n").encode()
            headers["Content-Type"] = f"multipart/form-data; boundary={_BOUNDARY}"
        else:
            body = urllib.parse.urlencode(step.params).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
    elif step.params:
        target += ("&" if "?" in target else "?") + urllib.parse.urlencode(step.params)
    if "gzip" in step.flags:
        body = gzip.compress(body or b"")
        headers["Content-Encoding"] = "gzip"
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request(step.method, target, body, headers)
        answer = connection.getresponse()
        return _reply(answer, answer.read())
    finally:
        connection.close()


def _reply(answer: http.client.HTTPResponse, body: bytes) -> Reply:
    lines = [f"< {answer.status}"]
    for name in _HEADERS:
        value = answer.headers.get(name)
        if value is not None:
            if name == "Allow":
                value = ", ".join(sorted(value.replace(" ", "").split(",")))
            lines.append(f"< {name}: {value}")
    if answer.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    if answer.headers.get("Content-Type") == "application/x-msgpack":
        body = "".join(f"{document}\n" for document in unpacked(body)).encode()
    text, coded = _without_code(body.decode(errors="backslashreplace"))
    code = answer.headers.get("X-DSDB-Error-Code", "")
    assert coded in ("", code), "the document has the code of the header"
    lines += [f"<| {line}".rstrip() for line in text.splitlines()]
    return Reply(tuple(lines), code)


def unpacked(body: bytes) -> list[Any]:
    """The MessagePack documents of a body; times are seconds and nanoseconds."""
    unpacker = msgpack.Unpacker(ext_hook=lambda code, data: (f"ext {code}", *struct.unpack(">qI", data)))
    unpacker.feed(body)
    return list(unpacker)


def _without_code(text: str) -> tuple[str, str]:
    if not re.match(r'\{\s*"error":', text):
        return text, ""
    document = json.loads(text)
    code = document.pop("code", "")
    if "\n" in text.strip():
        return json.dumps(document, indent=4, ensure_ascii=False), code
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False), code


def text_of(steps: list[Step], head: list[str]) -> str:
    lines = [*head]
    for step in steps:
        lines += [f"--- {step.title}", *step.source, *step.expected]
        if step.code:
            lines.append(f"< code {step.code}")
        lines.append("")
    return "\n".join(lines)


def record(path: Path, influxd: str, dsdbd: str) -> None:
    """Write the answers of both into the file: influxd's, or ours where a step differs."""
    head = []
    for line in path.read_text().split("\n"):
        if line.startswith("--- "):
            break
        head.append(line)
    steps = read_dialogue(path)
    for step in steps:
        ours = ask(step, dsdbd)
        theirs = Reply(()) if "ours" in step.flags else ask(step, influxd)
        step.expected = list((ours if step.differs else theirs).lines)
        step.code = ours.code
        if ours.lines != theirs.lines and not step.differs:
            print(f"{path.name}: {step.title}", *theirs.lines, "ours:", *ours.lines, sep="\n    ")
        if ours.lines == theirs.lines and step.differs:
            print(f"{path.name}: {step.title}: does not differ")
    path.write_text(text_of(steps, head))


def main() -> None:
    import tempfile

    from tests.cluster.daemons import Daemon
    from tests.http.servers import dsdbd_settings
    from tests.reference.influxd import influxd

    for name in sys.argv[1:]:
        path = Path(name)
        auth = path.stem.startswith("auth")
        with tempfile.TemporaryDirectory() as directory, influxd(Path(directory), auth=auth) as theirs:
            ours = Daemon(Path(directory) / "dsdb", settings=dsdbd_settings(auth=auth)).start()
            try:
                record(path, theirs.address, ours.address)
            finally:
                ours.kill()


if __name__ == "__main__":
    main()
