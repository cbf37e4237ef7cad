"""How data/compat/vmsds.csv is made: every VMStateDescription of every release, read from a QEMU git checkout.

    python -m vmstate_tools.qemu_source.extract --qemu-git DIR --qemu-git DIR2 -o data/compat/vmsds.csv

A row holds facts alone: names, versions, and for each field its macro and arguments.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from vmstate_tools.release import Release
from vmstate_tools.source.new_file import new_text_file

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_STRING = re.compile(r'^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+"([^"\n]*)"', re.MULTILINE)
_NUMBER = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w*VERSION\w*)[ \t]+\(?(\d+|0x[0-9a-fA-F]+)\)?[ \t]*$", re.MULTILINE)
_MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)\(([^)]*)\)((?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
_START = re.compile(r"\bVMStateDescription\s+(?:const\s+)?(\w+)\s*=\s*\{")
# What the main line is on its way to: its release is not tagged.
HEAD = "11.0.0"

_VERSION = re.compile(r"\d+\.\d+\.0\Z")


_COLUMNS = (
    *("file", "name", "since", "until", "version_id", "minimum_version_id"),
    *("unmigratable", "needed", "hooks", "subsections", "fields"),
)


class Vmsd(NamedTuple):
    """One description as a source file has it. `subsections` are C names until they are resolved."""

    symbol: str
    name: str
    version_id: int
    minimum_version_id: int
    unmigratable: bool
    needed: str
    hooks: str
    subsections: tuple[str, ...]
    fields: tuple[str, ...]


@dataclass
class Repository:
    """A Repository is a git repository read by plumbing alone."""

    path: Path
    texts: dict[str, str] = field(default_factory=dict)

    def git(self, *args: str) -> str:
        command = ["git", "-C", str(self.path), *args]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout

    def releases(self) -> dict[str, str]:
        """Returns release → revision: tags, or the commits of the main line that set VERSION to one."""
        found = {t[1:]: t for t in self.git("tag").split() if re.fullmatch(r"v\d+\.\d+\.0", t)}
        log = self.git("log", "--first-parent", "--format=%H", "master", "--", "VERSION").split()
        for commit in log:
            text = self.git("show", f"{commit}:VERSION").strip()
            if _VERSION.match(text):
                found.setdefault(text, commit)
        return found

    def files(self, revision: str) -> dict[str, str]:
        """Returns path → blob, of the files that speak of descriptions, and of headers with names."""
        pattern = r"VMStateDescription|^#define TYPE_\w+ +\"|^#define \w*VERSION\w* +\(?[0-9]"
        listed = self.git("grep", "-lE", pattern, revision, "--", "*.c", "*.h", "*.inc")
        paths = [line.split(":", 1)[1] for line in listed.splitlines()]
        tree = {
            path: meta.split()[2]
            for meta, path in (line.split("\t", 1) for line in self.git("ls-tree", "-r", revision).splitlines())
        }
        return {p: tree[p] for p in paths if not p.startswith(("tests/", "roms/", "rust/"))}

    def read(self, blobs: Iterable[str]) -> None:
        """Reads the blobs whose text is not in `texts` yet into it."""
        missing = sorted(set(blobs) - self.texts.keys())
        if not missing:
            return
        command = ["git", "-C", str(self.path), "cat-file", "--batch"]
        done = subprocess.run(command, input="\n".join(missing).encode() + b"\n", capture_output=True, check=True)
        at = 0
        for blob in missing:
            end = done.stdout.index(b"\n", at)
            size = int(done.stdout[at:end].split()[2])
            self.texts[blob] = done.stdout[end + 1 : end + 1 + size].decode("latin-1")
            at = end + 2 + size


def strings_of(text: str) -> dict[str, str]:
    """Returns name → what it stands for, of macros that are strings or numbers."""
    return dict(_STRING.findall(text)) | dict(_NUMBER.findall(text))


def vmsds_of(text: str, strings: dict[str, str]) -> Iterator[Vmsd]:
    """Returns the descriptions that a source text defines, by macros too."""
    text = _COMMENT.sub(" ", text)
    macros = {m[1]: (m[2], m[3].replace("\\\n", " ")) for m in _MACRO.finditer(text) if "VMStateDescription" in m[3]}
    plain = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)
    for name, (parameters, body) in macros.items():
        for use in re.finditer(rf"^{name}\s*\(([^;{{}}]*?)\)\s*;?", plain, re.MULTILINE):
            given = [a.strip() for a in use[1].split(",")]
            plain += "\n" + _expand(body, [p.strip() for p in parameters.split(",")], given)
    for start in _START.finditer(plain):
        body = _braced(plain, start.end() - 1)
        if body is None:
            continue
        parts = dict(_designated(body))
        yield Vmsd(
            start[1],
            _string(parts.get("name", ""), strings),
            _number(parts.get("version_id", "0"), strings),
            _number(parts.get("minimum_version_id", "0"), strings),
            parts.get("unmigratable", "0") not in ("0", "false"),
            parts.get("needed", ""),
            " ".join(k for k in ("pre_load", "post_load", "pre_save", "load_state_old") if k in parts),
            tuple(_subsections(parts.get("subsections", ""))),
            tuple(_fields(parts.get("fields", ""))),
        )


def _expand(body: str, parameters: list[str], given: list[str]) -> str:
    """Returns a macro's body with its arguments put in, outside strings."""
    values = dict(zip(parameters, given, strict=False))

    def put(match: re.Match[str]) -> str:
        if match["string"]:
            return match[0]
        if match["quoted"]:
            return f'"{values[match["quoted"]]}"' if match["quoted"] in values else match[0]
        return values.get(match["word"], match["word"])

    tokens = r'(?P<string>"[^"]*")|(?<!#)#\s*(?P<quoted>\w+)|(?P<word>\w+)'
    return re.sub(r"\s*##\s*", "", re.sub(tokens, put, re.sub(r"\s*##\s*", " ## ", body)))


def _braced(text: str, at: int) -> str | None:
    """Returns what stands between the brace at `at` and its partner."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, at):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return text[at + 1 : match.start()]
    return None


def _split(text: str) -> Iterator[str]:
    """Splits text by the commas that no bracket encloses."""
    depth, start = 0, 0
    for match in re.finditer(r'[(){}\[\],]|"(?:[^"\\]|\\.)*"', text):
        if match[0] in "({[":
            depth += 1
        elif match[0] in ")}]":
            depth -= 1
        elif match[0] == "," and depth == 0:
            yield text[start : match.start()].strip()
            start = match.end()
    if text[start:].strip():
        yield text[start:].strip()


def _designated(body: str) -> Iterator[tuple[str, str]]:
    for part in _split(body):
        match = re.match(r"\.\s*(\w+)\s*=\s*(.*)", part, re.DOTALL)
        if match:
            yield match[1], match[2].strip()


def _string(text: str, strings: dict[str, str]) -> str:
    return "".join(m[1] if m[1] is not None else strings.get(m[2], "?") for m in re.finditer(r'"([^"]*)"|(\w+)', text))


def _number(text: str, names: dict[str, str]) -> int:
    """Returns a version: a number or a name for one; -1 where it is neither."""
    text = text.strip("() ")
    match = re.match(r"(0x[0-9a-fA-F]+|\d+)", names.get(text, text))
    return int(match[1], 0) if match else -1


def _list(text: str) -> list[str]:
    at = text.find("{")
    body = _braced(text, at) if at >= 0 else None
    return list(_split(body)) if body is not None else []


def _subsections(text: str) -> Iterator[str]:
    for item in _list(text):
        match = re.search(r"&\s*(\w+)", item)
        if match:
            yield match[1]


def _fields(text: str) -> Iterator[str]:
    """Returns each field as 'MACRO name argument …', the state's C type left out."""
    for item in _list(text):
        match = re.match(r"VMSTATE_(\w+)\s*\((.*)\)\Z", item, re.DOTALL)
        if match and match[1] != "END_OF_LIST":
            arguments = [re.sub(r"\s+", "", a) for a in _split(match[2])]
            if match[1].startswith("UNUSED") or len(arguments) < 2:
                yield " ".join([match[1], *arguments])
            else:
                yield " ".join([match[1], arguments[0], *arguments[2:]])
        elif not match and item.startswith("{"):
            parts = dict(_designated(item[1:-1]))
            if "name" in parts:
                name = re.sub(r'^stringify\((.*)\)$|^"(.*)"$', lambda m: m[1] or m[2], parts["name"])
                info = parts.get("info", parts.get("vmsd", "")).lstrip("& ")
                test = parts.get("field_exists", "")
                version = parts.get("version_id", "")
                more = [w for w in (info, test and f"test={test}", version and f"version={version}") if w]
                yield " ".join(["FIELD", re.sub(r"\s+", "", name), *(re.sub(r"\s+", "", w) for w in more)])


def read_release(repository: Repository, revision: str) -> dict[tuple[str, str], Vmsd]:
    """Returns (file, name) → description, subsections by name."""
    files = repository.files(revision)
    repository.read(files.values())
    strings: dict[str, str] = {}
    for blob in files.values():
        strings |= strings_of(repository.texts[blob])
    found: dict[tuple[str, str], Vmsd] = {}
    names: dict[str, dict[str, str]] = {}
    for path, blob in files.items():
        if "VMStateDescription" in repository.texts[blob]:
            for vmsd in vmsds_of(repository.texts[blob], strings):
                found[path, vmsd.symbol] = vmsd
                names.setdefault(vmsd.symbol, {})[path] = vmsd.name
    out: dict[tuple[str, str], Vmsd] = {}
    for (path, symbol), vmsd in found.items():
        if not vmsd.name:
            continue
        subsections = []
        for sub in vmsd.subsections:
            where = names.get(sub, {})
            near = sorted(where, key=lambda p: (p != path, Path(p).parent != Path(path).parent, p))
            subsections.append(where[near[0]] if near else f"?{sub}")
        out[path, symbol] = vmsd._replace(subsections=tuple(sorted(subsections)))
    return out


def main() -> None:
    """Writes `data/compat/vmsds.csv` from git checkouts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--qemu-git", type=Path, action="append", required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--from", dest="first", default="1.6.0")
    arguments = parser.parse_args()
    where: dict[str, tuple[Repository, str]] = {}
    for path in arguments.qemu_git:
        repository = Repository(path)
        for release, revision in repository.releases().items():
            where.setdefault(release, (repository, revision))
        where[HEAD] = (repository, "HEAD" if not repository.git("rev-parse", "-q", "--verify", "master") else "master")
    order = sorted((r for r in where if r != HEAD and Release(r) >= Release(arguments.first)), key=Release)
    open_: dict[tuple[str, str], tuple[Vmsd, str, str]] = {}
    lines: list[tuple[str, str, str, Vmsd]] = []
    for release in tqdm([*order, HEAD], unit="release"):
        repository, revision = where[release]
        now = read_release(repository, revision)
        for key in open_.keys() - now.keys():
            vmsd, since, until = open_.pop(key)
            lines.append((key[0], since, until, vmsd))
        for key, vmsd in now.items():
            if key in open_ and open_[key][0] == vmsd:
                open_[key] = (vmsd, open_[key][1], release)
            else:
                if key in open_:
                    old, since, until = open_[key]
                    lines.append((key[0], since, until, old))
                open_[key] = (vmsd, release, release)
    lines += [(key[0], since, "", vmsd) for key, (vmsd, since, until) in open_.items()]
    lines.sort(key=lambda line: (line[0], line[3].name, Release(line[1])))
    with new_text_file(arguments.output, overwrite=True) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [
                "file",
                "name",
                "since",
                "until",
                "version_id",
                "minimum_version_id",
                "unmigratable",
                "needed",
                "hooks",
                "subsections",
                "fields",
            ]
        )
        for path, since, until, v in lines:
            writer.writerow(
                [
                    path,
                    v.name,
                    since,
                    until,
                    v.version_id,
                    v.minimum_version_id,
                    int(v.unmigratable),
                    v.needed,
                    v.hooks,
                    " ".join(v.subsections),
                    ";".join(v.fields),
                ]
            )


if __name__ == "__main__":
    main()
