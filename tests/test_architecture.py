"""The structure the design describes is the structure of the tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepmac_distill.chain import STAGES, TRAININGS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "deepmac_distill"
BENCHMARKS, EXAMPLES = ROOT / "benchmarks", ROOT / "examples"
LAYERS = [
    {"regular"},
    {"printable", "files"},
    {"errors", "look", "lattice", "comparing"},
    {"torchrun", "storage", "lease"},
    {"config", "structures", "progress", "stopping", "devices", "runlock", "shards", "chain", "ranks"}
    | {"paper", "machine", "links"},
    {"geometry", "contract", "made_with"},
    {"dataset", "weights", "teachers"},
    {"data", "models"},
    {"training", "inference", "evaluation", "rundir"},
    {"report"},
    {"labels", "shared_stage", "remote_run"},
    {"one_image", "exports", "calibration", "status"},
    {"stages"},
    {"forecast", "api"},
    {"experiments"},
    {"cli"},
    {"__main__"},
]
LEVEL_OF = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
CONFIG_READERS = {
    "config",
    "models/build.py",
    "models/catalog.py",
    "models/load.py",
    "stages",
    "forecast",
    "experiments",
    "api",
    "cli",
}
BANNED_NAMES = {"utils", "misc", "common", "helpers", "core", "base"}
MAX_LINES, MAX_FUNCTION_LINES = 300, 60


def sources() -> Iterator[Path]:
    return (path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of ours that a file imports, those inside functions and type checks included."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "deepmac_distill":
            rooms |= {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deepmac_distill."):
            rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            ours = [alias.name for alias in node.names if alias.name.startswith("deepmac_distill.")]
            rooms |= {name.split(".")[1] for name in ours}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; expected absolute ones"
    return rooms


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_and_never_to_a_sibling(path: Path) -> None:
    here = room_of(path)
    for there in imported_rooms(path) - {here}:
        assert LEVEL_OF[there] < LEVEL_OF[here], f"{path}: {here} imports {there}"


def test_only_model_building_stages_forecast_and_the_command_line_read_config() -> None:
    readers = {str(path.relative_to(PACKAGE)) for path in sources() if "config" in imported_rooms(path)}
    assert {
        name for name in readers if name not in CONFIG_READERS and name.split("/")[0] not in CONFIG_READERS
    } == set()


def test_no_file_is_a_drawer_for_everything() -> None:
    names = {path.stem for path in PACKAGE.rglob("*")}
    assert not names & BANNED_NAMES


@pytest.mark.parametrize(
    "path",
    [*PACKAGE.rglob("*.py"), *BENCHMARKS.rglob("*.py"), *EXAMPLES.rglob("*.py")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name


def test_the_command_line_prints_names_of_strangers_in_one_place() -> None:
    """`say` escapes control characters; only JSON, which has none, and what is our own is printed past it."""
    bare = [
        f"{path.name}:{node.lineno}"
        for path in (PACKAGE / "cli").glob("*.py")
        if path.name not in ("app.py", "terminal.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        if not ast.unparse(node.args[0]).startswith("json.dumps(")
    ]
    assert bare == []


def test_the_command_line_starts_without_torch() -> None:
    modules = "deepmac_distill.cli, deepmac_distill.status"  # the latter reads runs
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_library_neither_prints_nor_exits() -> None:
    for path in sources():
        if room_of(path) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("print", "exit", "sys.exit"), path


def sets_out_stages(node: ast.AST) -> bool:
    """Whether a literal, in their order, or a function, by calls, names three stages or more."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
        parts = node.keys if isinstance(node, ast.Dict) else node.elts
        words = [part.value for part in parts if isinstance(part, ast.Constant)]
        places = [list(STAGES).index(word) for word in words if word in STAGES]
        return len(places) >= 3 and places == sorted(places)
    if isinstance(node, ast.FunctionDef):
        calls = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
        named = {call.id for call in calls if isinstance(call, ast.Name)}
        return len(named & {"teach", "pseudolabel", "student", "evaluate", "report"}) >= 3
    return False


def test_the_order_of_the_stages_stands_in_one_place() -> None:
    places = {
        path.relative_to(ROOT)
        for path in (*PACKAGE.rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"))
        if any(map(sets_out_stages, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert places == {Path("src/deepmac_distill/chain.py")}


def test_a_stage_reads_only_what_stands_before_it() -> None:
    before: set[str] = set()
    for stage in STAGES.values():
        assert set(stage.reads) <= before, stage.name
        before.add(stage.name)
    assert set(TRAININGS) == {stage.name for stage in STAGES.values() if stage.kind == "train"}


def test_rows_travel_and_one_place_looks_annotations_up_by_id() -> None:
    """Matching a label file with its data set is the one look-up; reading numbers the rows of a file."""
    looked_up = {
        f"{path.relative_to(PACKAGE)}:{node.name}"
        for path in sources()
        if room_of(path) != "dataset"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and "annotation_id" in (text := ast.unparse(node))
        and any(search in text for search in ("searchsorted", "index_in", "argsort", "intersect1d"))
    }
    assert looked_up == {"labels/alignment.py:__init__"}  # of `LabelRows`
