"""The project's own rules: the fence around the kernels, stubs, versions, public names and documentation."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import normkit as nk
from normkit import _core

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "cpp" / "kernels"


def compiler() -> str:
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    assert found, "the tests need the C++ compiler that the build needs"
    return found


TABLE = "namespace normkit { extern const int kernels_baseline; const int kernels_baseline = 1; }\n"


def compiled(target: Path, source: str) -> Path:
    """An object of this source, with the kernels' options as far as they add or remove symbols."""
    target.with_suffix(".cpp").write_text(source)
    command = [compiler(), "-std=c++17", "-O1", "-fPIC", "-w", "-c", str(target.with_suffix(".cpp"))]
    subprocess.run([*command, "-o", str(target)], check=True)
    return target


def fence(target: Path, isa: str = "baseline") -> subprocess.CompletedProcess[str]:
    cmake, nm = shutil.which("cmake"), shutil.which("nm")
    assert nm, "the fence reads symbols with nm"
    command = [cmake] if cmake else [sys.executable, "-m", "cmake"]
    command += [f"-DNM={nm}", f"-DOBJECT={target}", f"-DISA={isa}"]
    return subprocess.run(
        [*command, "-P", str(KERNELS / "check_symbols.cmake")], capture_output=True, text=True, check=False
    )


def test_the_fence_lets_a_table_pass(tmp_path: Path) -> None:
    """The build itself puts the kernels through it."""
    inner = "#include <cstring>\nnamespace { void inner(char* x, int n) { std::memset(x, 0, n); } }\n"
    pointer = "static void (*volatile kept)(char*, int) = inner;\n"
    result = fence(compiled(tmp_path / "table.o", inner + pointer + TABLE))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("leak", "named"),
    [
        ("inline int planted(int x) { return x * 3; } int (*planted_pointer)(int) = planted;", "planted"),
        ("template <class T> T planted(T x) { return x * 3; } template float planted(float);", "planted"),
        (
            "#include <algorithm>\n#include <vector>\nint planted() { std::vector<int> v{3, 1}; std::sort(v.begin(), v.end()); return v[0]; }",
            "planted",
        ),
        ("extern int elsewhere(int); namespace { int (*volatile planted)(int) = elsewhere; }", "elsewhere"),
    ],
    ids=["inline function", "template", "standard library", "call of other code"],
)
def test_the_fence_stops_a_planted_symbol(tmp_path: Path, leak: str, named: str) -> None:
    result = fence(compiled(tmp_path / "planted.o", f"{leak}\n{TABLE}"))
    assert result.returncode != 0
    assert named in result.stderr
    assert "must define normkit::kernels_baseline and nothing else" in re.sub(r"\s+", " ", result.stderr)


def test_the_fence_wants_the_table_of_its_own_instruction_set(tmp_path: Path) -> None:
    assert fence(compiled(tmp_path / "table.o", TABLE), isa="avx2").returncode != 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for the registers of x86-64")
def test_the_module_has_code_for_registers_of_every_width() -> None:
    objdump = shutil.which("objdump")
    assert objdump, "binutils came with the compiler"
    counts = {"%xmm": 0, "%ymm": 0, "%zmm": 0}
    command = [objdump, "-d", "--no-show-raw-insn", _core.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as code:
        assert code.stdout
        for line in code.stdout:
            for register in counts:
                counts[register] += register in line
    assert code.returncode == 0
    assert min(counts.values()) > 1000, counts


def test_the_fence_is_part_of_the_build() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    assert "check_symbols.cmake" in text
    for target in ("_core", "golden"):
        assert f"\nfence({target})\n" in text


def test_kernels_include_nothing_but_each_other() -> None:
    allowed = {"<cstddef>", "<cstdint>", "<immintrin.h>", "<arm_neon.h>"}
    for file in sorted(KERNELS.iterdir()):
        if file.suffix in {".hpp", ".inl", ".cpp"}:
            for name in re.findall(r"#include\s+(\S+)", file.read_text()):
                assert name in allowed or (KERNELS / name.strip('"')).exists(), f"{file.name} includes {name}"
            if file.name not in {"table.hpp"}:
                assert "namespace {" in file.read_text(), f"{file.name} is not in an anonymous namespace"


def test_openmp_is_in_one_file() -> None:
    files = [f for f in (ROOT / "cpp").rglob("*") if f.is_file() and "#pragma omp" in f.read_text()]
    assert [f.name for f in files] == ["threads.cpp"]


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp's symbol versions are a matter of Linux")
def test_an_old_libgomp_is_enough() -> None:
    """Another library's copy of libgomp, such as torch's, serves this module when it was loaded first."""
    readelf = shutil.which("readelf")
    assert readelf, "binutils came with the compiler"
    text = subprocess.run([readelf, "-V", _core.__file__], capture_output=True, text=True, check=True).stdout
    versions = set(re.findall(r"Name: (G?OMP_[\d.]+)", text))
    assert versions <= {
        "OMP_1.0",
        "OMP_2.0",
        "OMP_3.0",
        "GOMP_1.0",
        "GOMP_2.0",
        "GOMP_3.0",
        "GOMP_4.0",
        "GOMP_4.5",
    }


def test_pybind11_is_in_one_folder() -> None:
    for file in (ROOT / "cpp").rglob("*"):
        if file.is_file() and "pybind11" in file.read_text():
            assert file.parent.name == "python", file


def test_no_fast_math() -> None:
    assert not re.search(r"-ffast-math|-Ofast|-funsafe-math", (ROOT / "CMakeLists.txt").read_text())


def test_the_stub_matches_the_compiled_module() -> None:
    tree = ast.parse((ROOT / "python/normkit/_core.pyi").read_text())
    stub = {node.name: len(node.args.args) for node in tree.body if isinstance(node, ast.FunctionDef)}
    compiled = {name: getattr(_core, name) for name in dir(_core) if not name.startswith("_")}
    assert set(stub) == set(compiled)
    for name, function in compiled.items():
        if function.__doc__ is None:  # positional calls without pybind11's overloads
            count = stub[name]
            with pytest.raises(TypeError, match=f"^expected {count} arguments, got {count + 1}$"):
                function(*[None] * (count + 1))
            continue
        signature = function.__doc__.splitlines()[0]
        assert signature.startswith(f"{name}(")
        parameters = signature[len(name) + 1 : signature.index(") ->")]
        assert len(re.findall(r"arg\d+", parameters)) == stub[name], signature


def test_versions_agree() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"', text, re.MULTILINE)
    assert version
    assert nk.__version__ == _core.__version__ == version[1] == importlib.metadata.version("normkit")
    assert f"## {version[1]}" in (ROOT / "CHANGELOG.md").read_text()


def test_public_functions_are_documented() -> None:
    for name in nk.__all__:
        value = getattr(nk, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert value.__doc__, name
    for name in ("layer_norm", "layer_norm_backward", "batch_norm", "batch_norm_backward"):
        text = getattr(nk, name).__doc__
        for parameter in inspect.signature(getattr(nk, name)).parameters:
            assert re.search(rf"^ +[\w, ]*\b{parameter}\b[\w, ]* :", text, re.MULTILINE), (
                f"{name}: {parameter} is not documented"
            )
        for section in ("Parameters", "Returns", "Raises"):
            assert f"{section}\n    ---" in text, f"{name} has no section {section}"


def test_types_are_published() -> None:
    assert (Path(nk.__file__).parent / "py.typed").exists()


def test_text_speaks_of_the_project_alone() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    hosts = re.compile(
        r"pypi\.org|pythonhosted|registry\.npmjs|deb\.debian\.org|/root/|/home/\w", re.IGNORECASE
    )
    for name in tracked.stdout.split():
        file = ROOT / name
        if (
            file.is_file()
            and file.suffix
            in {".py", ".pyi", ".md", ".cpp", ".hpp", ".inl", ".toml", ".txt", ".cmake", ".yml"}
            and file != Path(__file__)
        ):
            found = hosts.search(file.read_text())
            assert not found, f"{name} names {found[0] if found else ''}"
