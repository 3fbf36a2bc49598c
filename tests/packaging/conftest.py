"""The Debian package: built once for all workers, installed for one test at a time.

``built_deb`` is the path of the package; ``installed_package`` installs it and afterwards leaves the machine as it was.
A test that asks for one of them is marked slow and debian here, the second also root, and all run on one worker.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.machine import PROGRAMS, REPOSITORY, TRACES, InstalledPackage, clean


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "built_deb" in names:
            item.add_marker(pytest.mark.xdist_group("system-package"))
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.debian)
            item.add_marker(pytest.mark.timeout(600))
        if "installed_package" in names:
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def built_deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package from the working tree, once for all workers of this run."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    output = shared / "deb"
    with (shared / "deb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            # The output directory appears with its package in it, so that a failed build is tried and told again.
            part = shared / "deb.part"
            # Not run(): a machine that reaches its libraries in its own way says how in the environment.
            build = [REPOSITORY / "packaging" / "deb" / "build.sh", part]
            environ = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "VIRTUAL_ENV")}
            result = subprocess.run(
                build, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environ, timeout=500
            )
            assert result.returncode == 0, result.stdout + result.stderr
            part.rename(output)
    (package,) = output.glob("dsdb_*.deb")
    return package


@pytest.fixture
def installed_package(built_deb: Path) -> Iterator[InstalledPackage]:
    """Install the package; purge it, its account and its processes afterwards."""
    if os.getuid() != 0:
        pytest.skip("installing a package needs root")
    if Path("/run/systemd/system").exists():
        pytest.skip("this machine runs systemd: its own services are not for a test to change")
    with (Path(tempfile.gettempdir()) / "dsdb-package-test.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        present = [str(path) for path in (*TRACES, *PROGRAMS) if path.exists()]
        if present:
            pytest.skip(f"DSDB is already on this machine: {', '.join(present)}")
        try:
            pwd.getpwnam("dsdb")
            had_account = True
        except KeyError:
            had_account = False
        try:
            package = InstalledPackage(built_deb, "")
            package.install_output = package.install()
            yield package
        finally:
            clean(had_account)
