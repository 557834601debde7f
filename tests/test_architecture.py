"""The rooms: who may import whom, checked on the source; and what a device must not have to load."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import airtune

ROOT = Path(airtune.__file__).parent

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "ledger": {"errors"},
    "links": {"errors"},
    "codec": {"errors"},
    "tasks": {"errors"},
    "models": {"errors"},
    "adapters": {"errors", "codec", "models"},
    "transport": {"errors", "ledger", "links", "codec"},
    "records": {"errors", "ledger"},
    "workloads": {"errors", "links", "tasks", "models", "records"},
    "methods": {
        *("errors", "ledger", "links", "codec", "tasks", "models", "adapters", "transport", "records", "workloads"),
    },
    "reports": {"errors", "ledger", "records"},
    "studies": {"errors", "records", "reports"},
    "benches": {"errors", "adapters", "codec", "links", "methods", "models", "records", "tasks", "workloads"},
    "services": {
        *("errors", "adapters", "codec", "links", "methods", "models", "records", "reports", "studies", "transport"),
        "workloads",
    },
    "cli": {"errors", "benches", "links", "records", "reports", "services", "studies"},
}
TORCH_FREE = (
    "airtune",
    "airtune.links",
    "airtune.codec",
    "airtune.tasks",
    "airtune.transport",
    "airtune.records",
    "airtune.ledger",
    "airtune.adapters.export",
    "airtune.adapters.unpacking",
    "airtune.cli",
)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names of every airtune module that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "airtune":
            found |= {node.module} if node.module != "airtune" else {f"airtune.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "airtune"}
    return {name for name in found if "." in name}


SOURCES = sorted(path for path in ROOT.rglob("*.py") if room_of(path) not in ("__init__", "__main__"))


def test_every_room_on_disk_is_in_the_table():
    assert {room_of(path) for path in SOURCES} == set(MAY_IMPORT)


def test_rooms_form_no_circle():
    order = list(TopologicalSorter(MAY_IMPORT).static_order())
    assert order.index("links") < order.index("transport") < order.index("methods") < order.index("cli")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_rooms_its_own_may_use(path: Path):
    room = room_of(path)
    found = {name.split(".")[1] for name in imported(path)} & set(MAY_IMPORT)
    strangers = found - MAY_IMPORT[room] - {room} - ({"airtune"} if room == "cli" else set())
    assert not strangers, f"{path.relative_to(ROOT)} imports {sorted(strangers)}"


def test_no_method_imports_another():
    for path in (ROOT / "methods").rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        others = {name.split(".")[2] for name in imported(path) if name.startswith("airtune.methods.")}
        assert others <= {parts[1]}, path


def test_no_file_outgrows_its_idea():
    assert {path.name: count for path in SOURCES if (count := len(path.read_text().splitlines())) > 300} == {}


@pytest.mark.parametrize("module", TORCH_FREE)
def test_a_device_loads_no_torch(module: str):
    code = f"import sys, {module}; sys.exit(sorted({{'torch', 'transformers', 'matplotlib'}} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_exists():
    for name in airtune.__all__:
        assert getattr(airtune, name) is not None
