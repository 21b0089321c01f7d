"""What a process of a host loads: a library that few settings use is no memory of all the others."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["tools.muster.joined", "tools.muster.host.serve"])
def test_a_host_without_certificates_and_web_tokens_loads_no_library_for_them(module: str) -> None:
    asked = f"import sys, {module}; print(*{{'cryptography', 'jwt'}} & set(sys.modules), 'loaded')"
    assert _said(asked) == "loaded"


@pytest.mark.parametrize("module", ["tools.muster.joined", "tools.muster.host.serve"])
def test_a_host_loads_nothing_for_lines_in_colours(module: str) -> None:
    asked = f"import sys, {module}; print(*{{'rich', 'pygments'}} & set(sys.modules), 'loaded')"
    assert _said(asked) == "loaded"


def test_web_tokens_load_it() -> None:
    asked = "import sys, proxy.auth.jwt; print({'cryptography', 'jwt'} <= set(sys.modules))"
    assert _said(asked) == "True"


def _said(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return run.stdout.strip()
