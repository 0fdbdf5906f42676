"""Mutate single lines of the code and see whether the tests notice: 60 mutations for each of the seeds 0 and 1.

    python benchmarks/mutations.py --seed 0 --seed 1 [--count 60] [--jobs 2] [--output FILE] [--again] [--list]

A line is drawn from all lines of base/, trainer/, models/, data_loader/ and predictor/ that can be mutated, then one of
its mutations: another comparison, another arithmetic operator, another constant, a negated condition, a dropped
statement. The tests of that part run in a copy of the working tree; a test that fails or hangs catches the mutation.
Results are appended to a file, so that a run that was stopped continues. Mutations that change only a log, a message or
the speed are named in the table and left out of the count.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from queue import Queue
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.result_files import json_lines, require_result_file

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("base", "trainer", "models", "data_loader", "predictor")
SECONDS = 900.0  # of one run of the tests; a mutation that makes them hang is caught
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*",
}  # fmt: skip
# The tests of a part, the nearest first: they stop at the first failure. The longest prefix of a file's path counts.
TESTS = {
    "base/": "base_model base_data_loader trainer trainer_craft train inference metrics schedules",
    "base/samples": "base_data_loader loaders class_weights train data_cache",
    "base/base_data_loader.py": "base_data_loader loaders check_data train",
    "base/class_weights.py": "class_weights",
    "base/base_inference.py": "inference export predictor_looks",
    "base/base_model.py": "base_model models classifiers",
    "trainer/": "trainer trainer_craft train distributed checkpoint_file logger_callbacks test_py",
    "trainer/optim/": "schedules trainer_craft train",
    "trainer/checkpoints/": "checkpoint_file train stored_runs test_py trainer",
    "trainer/runtime/": "cpu_convolutions trainer_craft train distributed devices models_adapters",
    "models/": "models_numbers models models_encdec models_backbones models_timm models_adapters classifiers "
    "models_auxiliary one_channel",
    "models/losses/": "losses_numbers losses class_weights models_auxiliary models_numbers",
    "models/metrics/": "metrics metrics_beyond",
    "models/export/": "export export_classifiers",
    "models/inference/": "views",
    "data_loader/": "data_* loaders",
    "data_loader/checking/": "check_data",
    "data_loader/common/": "data_* loaders kept check_data",
    "data_loader/segmentation/": "data_* loaders kept",
    "data_loader/classification/": "data_image_classification classification_commands loaders",
    "data_loader/time_series/": "data_series classification_commands loaders export_classifiers",
    "predictor/": "inference predictor*",
}
# (file, line, code in the place): why no test can notice the mutation.
NOT_COUNTED: dict[tuple[str, str, str], str] = {
    (
        "models/export/tracing.py",
        "for factor, (length, side) in enumerate(zip(size, list(traced.sides.values())[1:], strict=True), start=1)",
        "2",
    ): "other lengths to compare at",
    ("models/export/tracing.py", "generator = torch.Generator().manual_seed(0)", "1"): "other random inputs",
    ("models/export/tracing.py", "TOLERANCE = 1e-3  # of logits, at sizes other than the traced one", "0.002"): (
        "programs of the wrong size differ by far more, right ones by far less"
    ),
    (
        "models/resnet1d/model.py",
        "for place, (width, kernel) in enumerate(zip(inputs, KERNELS, strict=True))",
        "False",
    ): "both have three items",
    (
        "data_loader/segmentation/loader.py",
        "batch.append(torch.empty(0, dtype=dtype).set_(storage, 0, shape))  # type: ignore[call-overload]",
        "1",
    ): "the storage is replaced",
    (
        "predictor/compositing.py",
        "BLUR_SIZE = 320  # longer side at which a background is blurred: more detail would be lost anyway",
        "321",
    ): ("the size of an intermediate result"),
    ("base/base_data_loader.py", 'if "cv2" in sys.modules:', "(not ('cv2' in sys.modules))"): (
        "speed: the threads of OpenCV in a loader worker"
    ),
    ("base/base_data_loader.py", "pin_memory: bool | None = None,", "True"): "without CUDA, memory is never pinned",
    ("predictor/io/sinks.py", "_size: tuple[int, int] = field(init=False, default=(0, 0))", "1"): (
        "replaced by the first frame before it is read"
    ),
    ("predictor/io/sinks.py", "_started: float = field(init=False, default=0.0)", "1.0"): (
        "replaced by the first frame before it is read"
    ),
    ("data_loader/images/files.py", 'is_whole = b"IEND" in data[-4096:]', "(b'IEND' not in data[-4096:])"): (
        "today's OpenCV refuses files that are cut off before this check, which earlier versions need"
    ),
    (
        "data_loader/images/files.py",
        "_decode_with_pillow(data, path)  # OpenCV fills the missing pixels with grey; Pillow raises an error",
        "pass",
    ): "today's OpenCV refuses files that are cut off before this check, which earlier versions need",
    (
        "models/export/tracing.py",
        'options = {"check_guards": False} if "check_guards" in inspect.signature(program.module).parameters else {}',
        "True",
    ): "today's torch has no guard on the memory layout of these networks, earlier versions had",
    (
        "data_loader/time_series/preprocessing.py",
        "return mean, np.where(deviation < 1e-12, 1.0, deviation)",
        "(deviation <= 1e-12)",
    ): "differs for a deviation of exactly 1e-12 only",
    ("data_loader/images/files.py", "image.load()", "pass"): (
        "today's NumPy passes on the error of an image that is cut off, earlier ones did not"
    ),
    ("predictor/loop.py", 'timer.seconds["read"].append(perf_counter() - start)', "((perf_counter()) + (start))"): (
        "a measured time, for the table of times"
    ),
    (
        "predictor/loop.py",
        'unit = "image" if source.frame_rate is None else "frame"',
        "(source.frame_rate is not None)",
    ): ("the text of a progress bar"),
    (
        "models/export/tracing.py",
        "for factor, (length, side) in enumerate(zip(size, list(traced.sides.values())[1:], strict=True), start=1)",
        "False",
    ): "both have as many items as the input has sides",
    ("models/pspnet/model.py", "for bins, branch in zip(BINS, self.branches, strict=True):", "False"): (
        "the branches are made from the same list"
    ),
    ("predictor/io/sources.py", "for name, path in zip(self.names, self.files, strict=True):", "False"): (
        "the names are made from the files"
    ),
    ("data_loader/classification/loader.py", "@dataclass(eq=False)", "True"): "nothing compares two of them",
    (
        "data_loader/classification/loader.py",
        "require_one_size([sample.image.shape[:2] for sample in samples])",
        "3",
    ): "all images of a loader have the same channels",
    ("models/metrics/confusion.py", "COUNTER_COPIES = 64", "65"): "speed on a GPU",
    (
        "models/convnet/model.py",
        "self.first_norm = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))",
        "False",
    ): "memory: the same numbers in another place",
    (
        "trainer/runtime/devices.py",
        'if "LOCAL_RANK" in os.environ and available:  # one process for each GPU, under torchrun',
        "('LOCAL_RANK' not in os.environ)",
    ): "without a GPU, nothing is available",
}


@dataclass(frozen=True)
class Mutation:
    """One changed place in one line.

    Attributes:
        file: Path from the root.
        line: Line number, from 1.
        start: First column, from 0, and `end` the one behind the last.
        kind: Comparison, arithmetic, constant, condition or statement.
        before: The code that is replaced.
        after: The code in its place.
        is_message: Whether only a log or the text of a message changes.
    """

    file: str
    line: int
    start: int
    end: int
    kind: str
    before: str
    after: str
    is_message: bool


def mutations_of(path: Path) -> Iterator[Mutation]:
    """Yield every mutation of a file."""
    text = path.read_text()
    tree, lines = ast.parse(text), text.splitlines()
    skipped, messages = _annotations(tree), _messages(tree)

    def mutation(node: ast.expr | ast.stmt, kind: str, after: str) -> Mutation | None:
        if node.lineno != node.end_lineno or node.end_col_offset is None or id(node) in skipped:
            return None
        # Columns of `ast` count bytes.
        line = lines[node.lineno - 1].encode()
        before = line[node.col_offset : node.end_col_offset].decode()
        name = str(path.relative_to(ROOT))
        return Mutation(
            name, node.lineno, node.col_offset, node.end_col_offset, kind, before, after, id(node) in messages
        )

    for node in ast.walk(tree):
        found: list[Mutation | None] = []
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right = ast.unparse(node.left), ast.unparse(node.comparators[0])
            found.append(mutation(node, "comparison", f"({left} {COMPARISONS[type(node.ops[0])]} {right})"))
        elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            left, right = ast.unparse(node.left), ast.unparse(node.right)
            found.append(mutation(node, "arithmetic", f"(({left}) {OPERATORS[type(node.op)]} ({right}))"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            value = node.value
            other = (
                (not value) if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 2 or 1.0
            )
            found.append(mutation(node, "constant", repr(other)))
        elif isinstance(node, ast.Expr | ast.AugAssign) and not isinstance(getattr(node, "value", None), ast.Constant):
            found.append(mutation(node, "statement", "pass"))
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            found.append(mutation(node.test, "condition", f"(not ({ast.unparse(node.test)}))"))
        yield from filter(None, found)


def _annotations(tree: ast.AST) -> set[int]:
    """Return the ids of nodes that do not run: annotations, and blocks for type checkers."""
    roots: list[ast.AST] = []
    for node in ast.walk(tree):
        roots += [part for name in ("annotation", "returns") if (part := getattr(node, name, None)) is not None]
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            roots.append(node)
    return {id(part) for root in roots for part in ast.walk(root)}


def _messages(tree: ast.AST) -> set[int]:
    """Return the ids of nodes inside calls of a logger, errors that are raised, and f-strings."""
    roots: list[ast.AST] = []
    for node in ast.walk(tree):
        is_log = isinstance(node, ast.Expr) and ast.unparse(node).startswith(("logger.", "warnings."))
        if is_log or isinstance(node, ast.JoinedStr):
            roots.append(node)
        elif isinstance(node, ast.Raise) and node.exc is not None:
            roots.append(node.exc)
    return {id(part) for root in roots for part in ast.walk(root)}


def draw(seed: int, count: int) -> list[Mutation]:
    """Draw mutations of `count` different lines, each line as likely as any other."""
    by_line: dict[tuple[str, int], list[Mutation]] = {}
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*.py")):
            for found in mutations_of(path):
                by_line.setdefault((found.file, found.line), []).append(found)
    rng = random.Random(seed)
    return [rng.choice(by_line[line]) for line in rng.sample(sorted(by_line), count)]


def tests_of(file: str) -> list[str]:
    """Return the test files of the part that a file belongs to."""
    prefix = max((prefix for prefix in TESTS if file.startswith(prefix)), key=len)
    found = [sorted((ROOT / "tests").glob(f"test_{name}.py")) for name in TESTS[prefix].split()]
    return list(dict.fromkeys(str(path.relative_to(ROOT)) for paths in found for path in paths))


def run(mutation: Mutation, copy: Path) -> str:
    """Run the tests of a mutation in a copy of the tree; `caught` or `survived`."""
    path = copy / mutation.file
    original = path.read_bytes()
    lines = original.splitlines(keepends=True)
    line = lines[mutation.line - 1]
    lines[mutation.line - 1] = line[: mutation.start] + mutation.after.encode() + line[mutation.end :]
    path.write_bytes(b"".join(lines))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests_of(mutation.file)]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=SECONDS, check=False)
        return "survived" if done.returncode == 0 else "caught"
    except subprocess.TimeoutExpired:
        return "caught"
    finally:
        path.write_bytes(original)


def _copies(folder: Path, count: int) -> "Queue[Path]":
    """Copy the files of the working tree that git knows or does not ignore, `count` times."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    copies: Queue[Path] = Queue()
    for number in range(count):
        for name in listed.stdout.split("\n"):
            if name and (ROOT / name).is_file():
                (folder / str(number) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / str(number) / name)
        copies.put(folder / str(number))
    return copies


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the counts by seed, and every mutation that was not caught, as text."""
    lines = []
    for seed in sorted({row["seed"] for row in results}):
        rows = [row for row in results if row["seed"] == seed]
        counted = [row for row in rows if row["outcome"] != "not counted"]
        caught = sum(row["outcome"] == "caught" for row in counted)
        lines.append(f"seed {seed}: {caught} of {len(counted)} caught ({caught / max(len(counted), 1):.0%})")
    for row in results:
        if row["outcome"] != "caught":
            place = f"{row['file']}:{row['line']}"
            lines.append(f"{row['outcome']:<12} {place:<50} {row['before']}  ->  {row['after']}  {row['reason']}")
    return "\n".join(lines)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what makes a mutation of a seed the same."""
    return tuple(row[name] for name in ("seed", "file", "line", "before", "after"))


def main() -> None:
    """Draw, run and report."""
    parser = argparse.ArgumentParser(description="Mutate single lines and see whether the tests notice.")
    parser.add_argument("--seed", type=int, action="append", help="default: 0 and 1")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "saved/mutations.jsonl")
    parser.add_argument("--again", action="store_true", help="only those of the output file that were not caught")
    parser.add_argument("--list", action="store_true", help="print the mutations and run nothing")
    options = parser.parse_args()
    require_result_file(options.output, json_lines("seed", "file", "before", "after", "outcome"), ".jsonl")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    earlier = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    known = {key(row): row for row in earlier}
    if options.again:
        names = [each.name for each in fields(Mutation)]
        left = [row for row in known.values() if row["outcome"] != "caught"]
        drawn = [(row["seed"], Mutation(**{name: row[name] for name in names})) for row in left]
    else:
        drawn = [(seed, each) for seed in options.seed or [0, 1] for each in draw(seed, options.count)]
    if options.list:
        print("\n".join(f"{seed} {each.file}:{each.line} {each.before} -> {each.after}" for seed, each in drawn))
        return

    def work(seed: int, mutation: Mutation) -> dict[str, Any]:
        line = (ROOT / mutation.file).read_text().splitlines()[mutation.line - 1].strip()
        reason = NOT_COUNTED.get((mutation.file, line, mutation.after), "message" * mutation.is_message)
        row: dict[str, Any] = known.get(key({"seed": seed, **asdict(mutation)}), {})
        if row.get("outcome") == "caught":
            return row
        if reason:
            return {"seed": seed, **asdict(mutation), "outcome": "not counted", "reason": reason}
        copy = copies.get()
        try:
            row = {"seed": seed, **asdict(mutation), "outcome": run(mutation, copy), "reason": ""}
        finally:
            copies.put(copy)
        with options.output.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{row['outcome']:<9} {mutation.file}:{mutation.line}  {mutation.before} -> {mutation.after}", flush=True)
        return row

    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        copies = _copies(Path(scratch), options.jobs)
        results = list(pool.map(work, *zip(*drawn, strict=True)))
    print(table(list({**known, **{key(row): row for row in results}}.values()) if options.again else results))


if __name__ == "__main__":
    main()
