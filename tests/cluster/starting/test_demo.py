"""``make demo``, its five steps, README's "Try it" and the guides, pasted into a shell as newcomers do."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forks
from tests.cluster.local_cluster import ROOT, environment, free_base_port

_BIN = ROOT / ".venv" / "bin"

pytestmark = [
    pytest.mark.skipif(not (_BIN / "etcdctl").exists(), reason="needs make setup: the steps name .venv/bin"),
    pytest.mark.timeout(180),
]


@contextlib.contextmanager
def demo(data_dir: Path, base_port: int, *, cold: bool = False) -> Iterator[str]:
    """A demo that is ready: what it has told until then. ``cold``: it is not forked."""
    line = [sys.executable, "-m", "tools.muster.demo", f"--data-dir={data_dir}", f"--base-port={base_port}"]
    with forks.popen(
        line, cold=cold, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            text = ""
            for told in process.stdout:
                text += told
                if told.startswith("Ctrl-C"):
                    break
            yield text
        finally:
            process.terminate()


def pasted(commands: list[str]) -> tuple[list[str], str]:
    """What each of the commands prints, in one shell in this folder, and what all say on stderr."""
    script = "set -m\n" + "\necho =====\n".join(commands)
    line = ["bash", "-c", script]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    return done.stdout.split("=====\n"), done.stderr


def test_each_of_the_five_steps_shows_something(tmp_path: Path) -> None:
    with demo(tmp_path / "d", free_base_port(3), cold=True) as text:
        head, *steps = re.split(r"(?m)^ \d\. [a-zA-Z', ]{20} ", text.partition("\nCtrl-C")[0])
        console = re.search(r"Web console +(\S+)", head)
        assert console is not None
        with urllib.request.urlopen(f"{console[1]}/keys", timeout=20) as page:
            assert b"muster" in page.read()
        variable = re.search(r"First: (E=\S+)", head)
        assert variable is not None
        assert len(steps) == 5
        steps[0] = f"{variable[1]}\n{steps[0]}"
        shown, errors = pasted(steps)
    assert shown[0] == "OK\ngreeting\nhello\n", errors
    # the watch and the put print at the same time
    assert "PUT\n/service/web\nstill up\n" in shown[1].replace("OK\n", "")
    assert "started host 0" in shown[1]
    assert shown[2].count("true") >= 1
    assert "IS LEADER" in shown[2]
    assert "FEED FROM" in shown[2]
    assert shown[3].startswith('{"health":"true"')
    assert "etcd_server_has_leader 1" in shown[3]
    assert 'value: "hello"' in shown[4]


_DIFFERS = re.compile(r"took = \S+|process \d+|[0-9a-f]{12,16}|remaining\(\d+s\)|Index\":\d+")


def _told(text: str) -> list[str]:
    """The lines, without what differs from run to run: times, processes, leases, indexes of version 2, the
    order in which endpoints answer."""
    return sorted(_DIFFERS.sub("...", text).splitlines())


def at(base: int, text: str) -> str:
    """A page's commands with the ports of another demo."""
    return re.sub(r"\b2([345])79\b", lambda port: str(base + 100 * (int(port[1]) - 3)), text)


def commands_of(console: str) -> list[tuple[str, str]]:
    """The commands of a transcript, with what each shows. A command may hold a document up to ``END``."""
    steps = []
    for step in re.split(r"(?m)^\$ ", console)[1:]:
        command, _, said = step.partition("\n")
        if "<<END" in command:
            document, _, said = said.partition("\nEND\n")
            command += f"\n{document}\nEND"
        steps.append((command, said))
    return steps


def test_what_readme_tries_shows_what_it_says(tmp_path: Path) -> None:
    base = free_base_port(3)
    readme = (ROOT / "README.md").read_text()
    transcript = re.search(r"(?s)## Try it.*?```console\n(.*?)```.*?```python\n(.*?)```", readme)
    assert transcript is not None
    console, script = (
        at(base, part).replace(".demo", f"{tmp_path}/d") for part in transcript.groups()
    )  # fmt: skip
    steps = commands_of(console)
    assert len(steps) > 5
    with demo(tmp_path / "d", base):
        shown, errors = pasted([*(command for command, _ in steps), f"python - <<'END'\n{script}END"])
    for (command, said), heard in zip(steps, shown[:-1], strict=True):
        assert _told(heard) == _told(said), f"{command}\n{errors}"
    assert "/service/web/10.0.0.1 up" in shown[-1], errors


_GUIDES = ("tutorial", "locks", "discovery", "configuration", "queues", "v2")


@pytest.fixture(scope="module")
def base_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The first port of a demo that all guides share."""
    base = free_base_port(3)
    with demo(tmp_path_factory.mktemp("guides") / "d", base):
        yield base


@pytest.mark.parametrize("guide", _GUIDES)
def test_what_a_guide_shows_is_what_comes(guide: str, base_port: int, tmp_path: Path) -> None:
    use = ROOT / "docs" / "use"
    setup, *others = (
        at(base_port, "".join(re.findall(r"(?ms)^```console\n(.*?)^```", (use / f"{name}.md").read_text())))
        for name in dict.fromkeys(("tutorial", guide))
    )
    steps = commands_of("".join(others) or setup)
    exports = [command for command, _ in commands_of(setup)[:2]]
    assert len(steps) > 1
    assert all(command.startswith("export ") for command in exports)
    asked = [command.replace("/tmp/", f"{tmp_path}/") for command, _ in steps]
    shown, errors = pasted([*exports, *asked])
    for (command, said), heard in zip(steps, shown[2:], strict=True):
        assert _told(heard) == _told(said), f"{command}\n{errors}"


def test_every_guide_with_a_transcript_is_pasted() -> None:
    pages = (ROOT / "docs" / "use").glob("*.md")
    assert {page.stem for page in pages if "```console" in page.read_text()} == set(_GUIDES)
