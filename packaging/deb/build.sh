#!/bin/bash
# Builds dsdb_VERSION_ARCH.deb with every Python library inside.
#
# Usage: packaging/deb/build.sh [OUTPUT_DIR]        OUTPUT_DIR is dist/ when not given
#
#   PYTHON             interpreter to build for; its minor version is the one the package will need
#   SOURCE_DATE_EPOCH  time given to every file, in seconds; the time of the last commit when not set
#
# The same sources, libraries and SOURCE_DATE_EPOCH give the same package, byte for byte.
# Needs dpkg-deb, and pip for PYTHON or in .venv; runs as any user.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC

repository=$(cd "$(dirname "$0")/../.." && pwd)
output=${1:-$repository/dist}
PYTHON=${PYTHON:-$(PATH=/usr/bin:$PATH command -v python3)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$repository" log -1 --format=%ct 2>/dev/null ||
    stat -c %Y "$repository/dsdbd/version.py")}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage=$work/stage
library=$stage/usr/lib/dsdb
doc=$stage/usr/share/doc/dsdb

fail() {
    echo "build.sh: $1" >&2
    exit 1
}

find_pip() {
    if "$PYTHON" -m pip --version >/dev/null 2>&1; then
        pip=("$PYTHON" -m pip)
    elif [ -x "$repository/.venv/bin/pip" ]; then
        pip=("$repository/.venv/bin/pip" --python "$PYTHON")
    else
        fail "no pip for $PYTHON; install python3-pip or run \`make setup\` first"
    fi
}

install_libraries() {
    "$PYTHON" - "$repository/pyproject.toml" >"$work/requirements.txt" <<'PYTHON_END'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    print("\n".join(tomllib.load(file)["project"]["dependencies"]))
PYTHON_END
    "${pip[@]}" --disable-pip-version-check install --quiet --no-compile --no-warn-script-location \
        --root-user-action=ignore --target "$library" --constraint "$repository/constraints.txt" \
        --requirement "$work/requirements.txt"
}

# What nothing here imports: tests, headers, sources of extensions, and the cloud and RPC parts of Arrow.
prune_libraries() (
    cd "$library"
    rm -rf bin include share
    find . -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} +
    find . -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyi' -o -name '*.h' -o -name '*.a' \
        -o -name py.typed \) -delete
    rm -rf pyarrow/include pyarrow/includes pyarrow/src pyarrow/libarrow_python*.so \
        pyarrow/libarrow_python*.so.*.*.* pyarrow/libarrow_flight.so* pyarrow/libarrow_python_flight.so* \
        pyarrow/libarrow_s3.so* pyarrow/_flight.* pyarrow/flight.py pyarrow/_s3fs.* pyarrow/_gcsfs.* \
        pyarrow/_azurefs.* pyarrow/_hdfs.* pyarrow/_pyarrow_cpp_tests.* numpy/f2py numpy/_core/include
    # They name paths of this machine, or files that are gone.
    rm -f ./*.dist-info/{RECORD,INSTALLER,REQUESTED,direct_url.json}
    find . -depth -type d -empty -delete
)

copy_program() {
    local package
    for package in dsdbd dsdb_cli; do
        (cd "$repository" && find "$package" -type f ! -path '*/__pycache__/*' -print0 |
            tar --create --null --files-from=-) | tar --extract --directory="$library"
    done
    # Checked by content and never again at run time, so that the files carry no build time.
    "$PYTHON" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$stage" "$library"
}

# Every module must find everything it imports inside the bundle, and every library outside it on a plain Debian.
check_bundle() {
    local missing
    missing=$(find "$library" -name '*.so*' -type f -exec ldd {} + 2>&1 | grep 'not found' || true)
    [ -z "$missing" ] || fail "the bundle lacks shared libraries: $missing"
    "$PYTHON" -ISB - "$library" <<'PYTHON_END'
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
for name in ("pyarrow.compute", "pyarrow.dataset", "pyarrow.parquet", "pyarrow.csv", "pyarrow.ipc", "pyarrow.json"):
    importlib.import_module(name)
for root in ("dsdbd", "dsdb_cli"):
    for module in pkgutil.walk_packages([f"{sys.argv[1]}/{root}"], root + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
outside = [m for m in sys.modules.values() if "-packages" in (getattr(m, "__file__", None) or "")]
sys.exit(f"modules from outside the bundle: {outside}" if outside else 0)
PYTHON_END
}

wrapper() { # COMMAND MODULE PURPOSE
    sed -e "s|@MODULE@|$2|" -e "s|@PURPOSE@|$3|" "$repository/packaging/deb/wrapper.in" >"$work/wrapper"
    install -D -m 0755 "$work/wrapper" "$stage/usr/bin/$1"
}

copy_service_files() {
    local from=$repository/packaging
    wrapper dsdbd dsdbd.main "The DSDB daemon."
    wrapper dsdb dsdb_cli.main "The DSDB shell and administrative commands."
    [ -f "$repository/etc/dsdb.conf.example" ] || fail "etc/dsdb.conf.example is missing"
    install -D -m 0644 "$repository/etc/dsdb.conf.example" "$stage/etc/dsdb/dsdb.conf"
    install -D -m 0644 "$from/default/dsdb" "$stage/etc/default/dsdb"
    install -D -m 0644 "$from/logrotate/dsdb" "$stage/etc/logrotate.d/dsdb"
    install -D -m 0755 "$from/init.d/dsdb" "$stage/etc/init.d/dsdb"
    install -D -m 0644 "$from/systemd/dsdb.service" "$stage/usr/lib/systemd/system/dsdb.service"
    install -D -m 0644 "$from/sysusers.d/dsdb.conf" "$stage/usr/lib/sysusers.d/dsdb.conf"
    install -D -m 0644 "$from/tmpfiles.d/dsdb.conf" "$stage/usr/lib/tmpfiles.d/dsdb.conf"
}

copy_documents() {
    mkdir -p "$doc"
    if [ -f "$repository/README.md" ]; then
        install -m 0644 "$repository/README.md" "$doc/"
    fi
    "$PYTHON" - "$library" >"$doc/copyright" <<'PYTHON_END'
import email, pathlib, sys
print("This package contains DSDB and these libraries; their licence texts are in /usr/lib/dsdb/*.dist-info.\n")
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.dist-info/METADATA"), key=str):
    about = email.message_from_string(path.read_text(encoding="utf-8"))
    licence = about["License-Expression"] or (about["License"] or "").strip().partition("\n")[0]
    named = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier", []) if c.startswith("License")]
    print(f"{about['Name']} {about['Version']}: {licence or ', '.join(named) or 'see its directory'}")
PYTHON_END
}

write_control() {
    local version architecture python next
    version=$("$PYTHON" -ISB -c 'import runpy, sys; print(runpy.run_path(sys.argv[1])["VERSION"])' \
        "$repository/dsdbd/version.py")
    architecture=$(dpkg --print-architecture)
    python=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    next=$("$PYTHON" -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
    mkdir -m 0755 "$stage/DEBIAN"
    sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@PYTHON@/$python/; s/@NEXT_PYTHON@/$next/" \
        -e "s/@INSTALLED_KIB@/$(du -sk --apparent-size --exclude=DEBIAN "$stage" | cut -f1)/" \
        "$repository/packaging/deb/control.in" >"$stage/DEBIAN/control"
    install -m 0755 "$repository"/packaging/deb/{postinst,prerm,postrm} "$stage/DEBIAN/"
    (cd "$stage" && find etc -type f | sort | sed 's|^|/|') >"$stage/DEBIAN/conffiles"
    (cd "$stage" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$stage/DEBIAN/md5sums"
    package=$output/dsdb_${version}_$architecture.deb
}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$PYTHON is older than Python 3.11"
find_pip
install_libraries
prune_libraries
copy_program
check_bundle
copy_service_files
copy_documents
write_control
# Modes and times must not depend on who builds, and when.
chmod -R u=rwX,go=rX "$stage"
find "$stage" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$output"
# zstd packs in two seconds what takes xz a minute, for a quarter more size; every system with this Python reads it.
dpkg-deb --root-owner-group -Zzstd -z3 --build "$stage" "$work/package.deb" >/dev/null
mv "$work/package.deb" "$package"
echo "$package"
