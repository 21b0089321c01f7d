"""Build the Debian package: ``python packaging/debian.py WHEEL FOLDER`` (``make deb``). The wheel of the
client library lies beside muster's.

It is for this machine's architecture and for the release of /usr/bin/python3. muster and its dependencies, as
``requirements.lock`` has them, lie in an environment of their own below /opt/muster, so no other package
changes them. ``packaging/debian/`` has what runs when it is installed and removed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from distributions import ROOT, commit_time  # beside this script

PYTHON = "/usr/bin/python3"
VENV = "opt/muster/venv"
PROGRAMS = ("muster", "musterctl", "muster-bench")
_SCRIPTS = ("postinst", "prerm", "postrm")
_COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/{}",
    "zsh": "usr/share/zsh/vendor-completions/_{}",
    "fish": "usr/share/fish/vendor_completions.d/{}.fish",
}
_CONTROL = """Package: muster
Version: {version}
Architecture: {architecture}
Maintainer: muster's developers <muster@localhost>
Section: database
Priority: optional
Installed-Size: {size}
Depends: python3 (>= {python}), python3 (<< {next_python}), adduser
Description: strongly consistent, sharded key-value store
 muster keeps configuration, service registrations, locks and elections. etcd's
 clients use it unchanged. The package starts nothing by itself.
"""


def _run(*line: str | Path, **environ: str) -> str:
    done = subprocess.run(line, check=False, capture_output=True, text=True, env=os.environ | environ)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, line))}\n{done.stdout}{done.stderr}")
    return done.stdout


def client_of(wheel: Path) -> Path:
    """The wheel of the client library, of the same version, beside muster's."""
    return next(wheel.parent.glob(f"muster_client-{wheel.name.split('-')[1]}-*.whl"))


def _environment(root: Path, wheel: Path) -> None:
    """muster and its dependencies, with paths as they are once it is installed."""
    venv = root / VENV
    _run(PYTHON, "-m", "venv", "--without-pip", venv)
    pip = (
        sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "--quiet", "--no-compile",
        "--only-binary=:all:",
    )
    _run(*pip, "--require-hashes", "--requirement", ROOT / "requirements.lock")
    _run(*pip, "--no-deps", "--no-index", wheel, client_of(wheel))
    for script in (venv / "bin").iterdir():
        if script.is_file() and not script.is_symlink():
            text = script.read_text(encoding="utf-8")
            script.write_text(text.replace(str(root / VENV), f"/{VENV}"), encoding="utf-8")
    config = venv / "pyvenv.cfg"
    config.write_text(config.read_text(encoding="utf-8").replace(str(root / VENV), f"/{VENV}"))
    for other in venv.glob("lib/python*/site-packages/*.dist-info/direct_url.json"):
        other.unlink()  # names the wheel's folder on this machine


def _completions(root: Path) -> None:
    python = root / VENV / "bin/python"
    for program, module in (("muster", "tools.muster.cli"), ("musterctl", "tools.musterctl")):
        for shell, place in _COMPLETIONS.items():
            path = root / place.format(program)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_run(python, "-P", "-m", module, "completion", shell, PYTHONPATH=""))


def _files(root: Path) -> None:
    for source, target in (
        ("packaging/muster.service", "usr/lib/systemd/system/muster.service"),
        ("packaging/debian/muster.env", "etc/muster/muster.env"),
        ("README.md", "opt/muster/README.md"),
        ("LICENSE", "usr/share/doc/muster/copyright"),
        ("CHANGELOG.md", "usr/share/doc/muster/changelog"),
    ):
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, path)
    (root / "usr/bin").mkdir()
    for program in PROGRAMS:
        (root / "usr/bin" / program).symlink_to(f"../../{VENV}/bin/{program}")


def _control(root: Path, version: str) -> None:
    folder = root / "DEBIAN"
    folder.mkdir()
    found = _run(PYTHON, "-c", "import sys; print(*sys.version_info[:2])").split()
    size = sum(path.lstat().st_size for path in root.rglob("*") if not path.is_dir()) // 1024
    (folder / "control").write_text(_CONTROL.format(
        version=version, architecture=_run("dpkg", "--print-architecture").strip(), size=size,
        python=".".join(found), next_python=f"{found[0]}.{int(found[1]) + 1}"))
    (folder / "conffiles").write_text("/etc/muster/muster.env\n")
    for name in _SCRIPTS:
        shutil.copyfile(ROOT / "packaging/debian" / name, folder / name)


def _modes(root: Path) -> None:
    """Of a checkout with any umask."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            runs = path.is_dir() or path.parent.name == "bin" or path.name in _SCRIPTS
            path.chmod(0o755 if runs else 0o644)


def build(wheel: Path, folder: Path) -> Path:
    """The package; its path."""
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory() as work:
        root = Path(work, "root")
        root.mkdir()
        _environment(root, wheel.resolve())
        _files(root)
        _completions(root)
        for cache in list(root.rglob("__pycache__")):
            shutil.rmtree(cache)
        _control(root, version)
        _modes(root)
        folder.mkdir(parents=True, exist_ok=True)
        _run("dpkg-deb", "--build", "--root-owner-group", "-Zzstd", "-z9", root, folder,
             SOURCE_DATE_EPOCH=commit_time())  # fmt: skip
    architecture = _run("dpkg", "--print-architecture").strip()
    return folder / f"muster_{version}_{architecture}.deb"


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), Path(sys.argv[2])))
