"""Damaged and forged files, loaded: ``python benchmarks/fuzz.py MODEL... --out F [--count N] [--seed S]``.

Changes one of an exported file's three parts at random (model, manifest, golden patches), opens it with ``edge.load``,
reads its golden patches and predicts them. A changed part must be refused with a deliberate error of one line. A
``signed`` change also makes the hashes match again, as anyone can who has the files: it must be refused or answer.
Each case runs in a forked child that may use ``MORE_BYTES`` more memory and ``LIMIT_S`` seconds of CPU time, so that a
crash is a row and not the end. Linux only.
"""

import argparse
import io
import json
import os
import resource
import selectors
import signal
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import edge, files
from histoedge.benchmark import environment
from histoedge.edge import golden as goldens
from histoedge.edge import manifest as manifests
from histoedge.edge.errors import HistoedgeError
from histoedge.progress import on_terminal

KIND = "fuzz"
COUNT = 100_000
CASES_PER_TASK = 500
LIMIT_S = 1.0  # of CPU time: a busy machine is no hang
STUCK_S = 60.0  # of waiting without computing
MORE_BYTES = 500 << 20
OUTCOMES = ("refused", "same", "answered", "undeliberate", "crashed", "hung")

Change = Callable[[bytes, np.random.Generator], bytes]


def flipped(content: bytes, random: np.random.Generator) -> bytes:
    """One to eight bits flipped."""
    changed = bytearray(content)
    for place in random.integers(0, len(content), random.integers(1, 9)):
        changed[place] ^= 1 << int(random.integers(8))
    return bytes(changed)


def truncated(content: bytes, random: np.random.Generator) -> bytes:
    """The end missing."""
    return content[: int(random.integers(0, len(content)))]


def longer(content: bytes, random: np.random.Generator) -> bytes:
    """Random bytes put in somewhere."""
    place = int(random.integers(0, len(content) + 1))
    return content[:place] + random.bytes(int(random.integers(1, 65))) + content[place:]


def swapped(content: bytes, random: np.random.Generator) -> bytes:
    """Two blocks exchanged."""
    size = int(random.integers(1, max(2, min(257, len(content) // 4))))
    first, second = sorted(int(place) for place in random.integers(0, len(content) - size + 1, 2))
    second = min(max(second, first + size), len(content))
    blocks = content[first : first + size], content[second : second + size]
    middle = content[first + size : second]
    return content[:first] + blocks[1] + middle + blocks[0] + content[second + size :]


def zeroed(content: bytes, random: np.random.Generator) -> bytes:
    """A run of zeros."""
    place, size = int(random.integers(0, len(content))), int(random.integers(1, 257))
    return content[:place] + bytes(min(size, len(content) - place)) + content[place + size :]


BYTES: tuple[Change, ...] = (flipped, truncated, longer, swapped, zeroed)

DEPTH = 1100  # above the 1000 calls at which Python's parser gives up
EXTREMES = (
    *(0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e-300, 5e-324, 1e300, -1e300, 0.1, True, None, "", "\n", "x" * 9999),
    *([], {}, [[]], {"a\nb": {}}, "\ud800", "../../etc/passwd", float("nan"), float("inf")),
)


def document(content: bytes, random: np.random.Generator) -> bytes:
    """A JSON document with one or two places changed: a value, a key left out, renamed or doubled, deep nesting."""
    body = json.loads(content)
    for _ in range(random.integers(1, 3)):
        places = list(containers(body))
        held, key = places[random.integers(len(places))]
        how = random.integers(6)
        if how == 0 and isinstance(held, dict):
            del held[key]
        elif how == 1 and isinstance(held, dict):
            held[f"{key}\n"] = held.pop(key)
        elif how == 2:
            return json.dumps(body).encode().replace(b"{", b'{"deep": ' + nested(random) + b", ", 1)
        elif how == 3 and isinstance(held[key], int | float) and not isinstance(held[key], bool):
            held[key] = held[key] * float(random.choice([-1, 1.0000001, 10, 1e20]))
        elif how == 4:
            text = json.dumps(body)
            named = json.dumps(key) + ": "
            if isinstance(key, str) and named in text:
                return text.replace(named, f"{named}{json.dumps(EXTREMES[random.integers(3)])}, {named}", 1).encode()
        else:
            held[key] = EXTREMES[random.integers(len(EXTREMES))]
    return json.dumps(body, indent=1).encode()


def nested(random: np.random.Generator) -> bytes:
    """Lists or objects within each other, more or fewer than a parser can follow."""
    depth = int(random.choice([5, random.integers(DEPTH // 2, DEPTH), 20 * DEPTH]))
    return b"[" * depth + b"]" * depth if random.integers(2) else b'{"a":' * depth + b"0" + b"}" * depth


def containers(body: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON document: the list or object that holds it, and its index or key."""
    for key in list(body) if isinstance(body, dict) else range(len(body)):
        yield body, key
        if isinstance(body[key], dict | list):
            yield from containers(body[key])


HEADERS = (
    *("()", "(0,)", "(-1,)", "(4294967296, 4294967296)", "(99999999999999999999,)", "(16, 96, 96, 3)", "(16.0,)"),
    *("(" * 90 + ")" * 90, "[" * 4000, "(16,) * 99999999", "{(1,): [2]}", "1e999", "'" + "x" * 9000, "\\n", "(True,)"),
)
KINDS = ("|O", "<f4", "|u1", ">f4", "<f8", "|V9", "<U4", "|S8", "<M8[s]", "x", "")


def archive(content: bytes, random: np.random.Generator) -> bytes:
    """A golden file packed again with something wrong: members, headers, sizes, kinds, logits, packing."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    name = list(members)[random.integers(len(members))]
    how = random.integers(8)
    if how == 0:
        del members[name]
    elif how == 1:
        members[str(random.choice(["../x.npy", "patches", "logits.npy", "\n.npy"]))] = members.pop(name)
    elif how == 2:
        members[name] = BYTES[random.integers(len(BYTES))](members[name], random)
    elif how == 3:
        shape, kind = HEADERS[random.integers(len(HEADERS))], KINDS[random.integers(len(KINDS))]
        members[name] = array(f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}", b"\0" * 64)
    elif how == 4:
        members[name] = array(HEADERS[random.integers(len(HEADERS))], b"")
    elif how == 5:
        members[name] += bytes(int(random.choice([1, 1 << 20, goldens.LARGEST_GOLDEN_ARRAY_BYTES])))
    elif how == 6:
        values = np.full(len(members["labels.npy"]), random.choice([np.nan, np.inf, -np.inf, 3e38]), np.float32)
        members["logits.npy"] = npy(values)
    else:
        members[name] = npy(random.integers(0, 256, (16, 96, 96, 3), np.uint8))
    slow = random.integers(32) == 0 and how != 5
    methods = (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA) if slow else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    method = methods[random.integers(2)]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method, compresslevel=1) as packed:
        for each, held in members.items():
            packed.writestr(each, held)
    return made.getvalue()


def npy(values: np.ndarray) -> bytes:
    """An ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def array(header: str, content: bytes) -> bytes:
    """An ``.npy`` file with a header of any text."""
    told = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(told).to_bytes(2, "little") + told + content


@dataclass(frozen=True)
class Target:
    """A part of an exported file, how it is changed, whether the hashes are made to match, and its share of cases."""

    part: str
    changes: tuple[Change, ...]
    signed: bool
    share: float

    @property
    def name(self) -> str:
        """What the row says."""
        what = "bytes" if self.changes is BYTES else "contents"
        return f"{self.part}, {what}{', signed' if self.signed else ''}"


TARGETS = (
    Target("model", BYTES, False, 0.15),
    Target("manifest", BYTES, False, 0.2),
    Target("manifest", (document,), False, 0.2),
    Target("golden", BYTES, False, 0.15),
    Target("golden", (archive,), False, 0.1),
    Target("manifest", (document,), True, 0.1),
    Target("golden", (*BYTES, archive, archive, archive), True, 0.08),
    Target("model", BYTES, True, 0.02),
)


def target_of(seed: int, number: int) -> Target:
    """What case ``number`` changes."""
    shares = [one.share for one in TARGETS]
    return TARGETS[np.random.default_rng([seed, number, 0]).choice(len(TARGETS), p=shares)]


@dataclass(frozen=True)
class FuzzedModel:
    """The three parts of an exported file in memory."""

    name: str
    parts: dict[str, bytes]

    @classmethod
    def read(cls, model: Path) -> "FuzzedModel":
        """Of the file at this place, after the checks of ``edge.load``."""
        edge.operators(model)
        places = manifests.manifest_path(model), goldens.golden_path(model)
        contents = (path.read_bytes() for path in (model, *places))
        return cls(model.name, dict(zip(("model", "manifest", "golden"), contents, strict=True)))

    def case(self, seed: int, number: int) -> tuple[Target, dict[str, bytes]]:
        """Case ``number``: what is changed, and the three parts with the change, which is one."""
        target = target_of(seed, number)
        random = np.random.default_rng([seed, number, 1])
        content = self.parts[target.part]
        changed = content
        while changed == content:
            changed = target.changes[random.integers(len(target.changes))](content, random)
        parts = {**self.parts, target.part: changed}
        return target, signed(parts) if target.signed else parts


def signed(parts: dict[str, bytes]) -> dict[str, bytes]:
    """The parts with the hashes of a manifest that still is an object made to match."""
    try:
        body = json.loads(parts["manifest"])
        for key, part in (("sha256", "model"), ("golden_sha256", "golden")):
            if key in body:
                body[key] = manifests.hashlib.sha256(parts[part]).hexdigest()
        return {**parts, "manifest": json.dumps(body | {"digest": manifests.digest(body)}).encode()}
    except (ValueError, TypeError, RecursionError):
        return parts


def outcome(folder: Path, exported: FuzzedModel, parts: dict[str, bytes], written: dict[str, bytes]) -> str:
    """One of ``OUTCOMES`` but the last two, with a word on what was not deliberate.

    ``written`` is what lies in the folder, so that only what differs is written.
    """
    model = folder / exported.name
    places = {"model": model, "manifest": manifests.manifest_path(model), "golden": goldens.golden_path(model)}
    for part, place in places.items():
        if written.get(part) is not parts[part]:
            place.write_bytes(parts[part])
            written[part] = parts[part]
    try:
        runner = edge.load(model)
        golden = goldens.read_golden(model, runner.manifest)
        probabilities = runner.probability(golden.patches)
        runner.decide(golden.patches[:1])
        if not (np.isfinite(probabilities).all() and (probabilities >= 0).all() and (probabilities <= 1).all()):
            return "undeliberate: no probabilities"
    except HistoedgeError as error:
        return "refused" if "\n" not in str(error) else f"undeliberate: more than one line: {str(error)[:200]!r}"
    except Exception as error:  # what is looked for: any other exception is a bug
        return f"undeliberate: {type(error).__name__}: {str(error)[:200]!r}"
    return "same" if parts["model"] == exported.parts["model"] and says_the_same(parts, exported) else "answered"


def says_the_same(parts: dict[str, bytes], exported: FuzzedModel) -> bool:
    """Whether only the manifest's spelling was changed, such as its white space."""
    return parts["golden"] == exported.parts["golden"] and json.loads(parts["manifest"]) == json.loads(
        exported.parts["manifest"]
    )


def task(exported: FuzzedModel, seed: int, numbers: range) -> list[tuple[str, str, str]]:
    """Target, outcome and details of these cases, in forked children that end where one crashes."""
    found: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="histoedge-") as folder:
        while len(found) < len(numbers):
            left = numbers[len(found) :]
            told, ended = in_child(exported, seed, left, Path(folder))
            for number, line in zip(left, told, strict=False):
                kind, _, detail = line.partition(": ")
                found.append((target_of(seed, number).name, kind, detail))
            if ended is not None and len(found) < len(numbers):
                number = left[len(told)]
                found.append((target_of(seed, number).name, ended[0], f"case {number}, {ended[1]}"))
    return found


def in_child(
    exported: FuzzedModel, seed: int, numbers: range, folder: Path
) -> tuple[list[str], tuple[str, str] | None]:
    """The outcomes that a forked child told before it ended, and how it ended if not well."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        run_child(exported, seed, numbers, folder, writing)
    os.close(writing)
    content, stuck = b"", False
    with selectors.DefaultSelector() as ready, os.fdopen(reading, "rb", buffering=0) as pipe:
        ready.register(pipe, selectors.EVENT_READ)
        while True:
            if not ready.select(STUCK_S):
                stuck = True
                os.kill(child, signal.SIGKILL)
            piece = pipe.read(1 << 16)
            if not piece:
                break
            content += piece
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    told = content.decode().split("\n")[:-1]
    if status == 0:
        return told, None
    if stuck or status == -signal.SIGPROF:
        return told, ("hung", f"more than {LIMIT_S:g} s")
    return told, ("crashed", signal.Signals(-status).name if status < 0 else f"exit code {status}")


def run_child(exported: FuzzedModel, seed: int, numbers: range, folder: Path, writing: int) -> None:
    """Run cases until one has a model of its own bytes behind it, which may have spoilt the process; never returns."""
    warnings.simplefilter("error")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MORE_BYTES, size + MORE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stream in (1, 2):  # what interpreters say of such files
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    lying: dict[str, bytes] = {}
    for number in numbers:
        target, parts = exported.case(seed, number)
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        line = outcome(folder, exported, parts, lying)
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(writing, f"{line}\n".encode(errors="replace"))
        if target.part == "model" and target.signed:
            break
    os._exit(0)


def rows(exported: FuzzedModel, found: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """A row per target: how many cases ended how."""
    counts = Counter((target, kind) for target, kind, _ in found)
    return [
        {
            "file": exported.name,
            "changed": target.name,
            "cases": sum(counts[target.name, kind] for kind in OUTCOMES),
            **{kind: counts[target.name, kind] for kind in OUTCOMES},
        }
        for target in TARGETS
    ]


def fuzz_command() -> None:
    """Write a row per file and target; exit 3 where something was not deliberate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=COUNT, help="cases per file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    machine = environment.this_machine()
    table, bad, signals = [], [], Counter[str]()
    for runtime in edge.RUNTIMES.values():
        if runtime.installed() and runtime.name in ("litert", "onnxruntime"):
            import_module(runtime.module)  # once, not in every child
    with on_terminal() as show:
        for model in arguments.models:
            exported = FuzzedModel.read(model)
            starts = range(0, arguments.count, CASES_PER_TASK)
            with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("fork")) as pool:
                tasks = [
                    pool.submit(
                        task, exported, arguments.seed, range(start, min(start + CASES_PER_TASK, arguments.count))
                    )
                    for start in starts
                ]
                found = []
                for done, one in enumerate(tasks, start=1):
                    found += one.result()
                    show(f"fuzz {model.name}, tasks", done, len(tasks))
            table += rows(exported, found)
            for target, kind, detail in found:
                of_parser = target == TARGETS[-1].name and kind != "undeliberate"
                if kind in ("crashed", "hung") and of_parser:
                    signals[f"{model.name}: {kind}, {detail.partition(', ')[2]}"] += 1
                plain = not target.endswith("signed")
                if not of_parser and (kind in ("undeliberate", "crashed", "hung") or (plain and kind == "answered")):
                    bad.append(f"{model.name}: {target}: {kind}: {detail}")
    ended = "; ".join(f"{what} {count} times" for what, count in sorted(signals.items())) or "none"
    results = {
        "format": 1,
        "kind": KIND,
        "command": f"python benchmarks/fuzz.py MODEL... --out F --count {arguments.count} --seed {arguments.seed}",
        "about": f"Exported files with one part changed at random, opened, golden patches read and predicted: refused "
        f"by a deliberate error of one line; the same, where only the spelling of the manifest changed; answered; "
        f"undeliberate, any other exception, {MORE_BYTES >> 20} MB of memory included; crashed, ended by a signal; "
        f"hung, {LIMIT_S:g} s of CPU time. `signed`: the hashes made to match again, which anyone can do: they guard "
        "against damage and mix-ups, and are no proof of origin. What becomes of a forged model is up to the "
        f"interpreter's own parser (ended by it: {ended}): load models from sources you trust.",
        "environment": machine,
        "columns": list(table[0]),
        "rows": table,
        "not_deliberate": bad,
    }
    files.write_json(arguments.out, results)
    for line in bad[:20]:
        sys.stderr.write(f"{line}\n")
    sys.stdout.write(f"{arguments.out}\n")
    sys.exit(3 if bad else 0)


if __name__ == "__main__":
    try:
        fuzz_command()
    except HistoedgeError as error:
        sys.exit(str(error))
