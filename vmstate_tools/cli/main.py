"""`vmstate …`: thin, every command a few lines over the API.

Exit codes: 0 done; 1 the answer is no (a difference found, nothing matched); 2 bad input or usage. What costs time to
import is imported where it is used.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import vmstate_tools
from vmstate_tools.cli import compat as cli_compat
from vmstate_tools.cli import emulator as cli_qemu
from vmstate_tools.cli import report as cli_report
from vmstate_tools.cli.common import example, force_option, json_option, new_file
from vmstate_tools.cli.files import open_file, over
from vmstate_tools.errors import VmstateError
from vmstate_tools.show.text import FOLD, complain, print_json, print_table, say, wrapped

if TYPE_CHECKING:
    from vmstate_tools.stream.records import Section
    from vmstate_tools.stream.stream import Stream

T = TypeVar("T")


_EXIT = "vmstate.exit"  # where a command leaves the exit code for when it is done


class _Group(click.Group):
    """Turns what goes wrong with an input into one line on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly
        except (VmstateError, OSError) as err:
            complain(err)
            ctx.exit(2)
        if code := ctx.meta.get(_EXIT, 0):
            ctx.exit(code)
        return result


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(vmstate_tools.__version__, prog_name="vmstate")
def main() -> None:
    """Look into QEMU migration streams.

    FILE is a file that QEMU's `migrate` wrote, in whatever holds it: compressed, a libvirt save image, a qcow2
    image with an internal snapshot, a URL, or - for standard input.
    """


_files = click.argument("files", nargs=-1, required=True, metavar="FILE...")


def _opening(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how streams are opened; the command gets them as `opening`."""

    @click.option(
        "--description", metavar="OTHER", help="Decode what FILE does not describe by the description in stream OTHER."
    )
    @click.option("--partial", is_flag=True, help="Show what came before an error instead of failing.")
    @click.option("--snapshot", metavar="NAME", help="Which internal snapshot of a qcow2 image.")
    @functools.wraps(command)
    def wrapped(*args: Any, description: str | None, partial: bool, snapshot: str | None, **kwargs: Any) -> Any:
        opening = {"description": description, "partial": partial, "snapshot": snapshot}
        return command(*args, opening=opening, **kwargs)

    return wrapped


def _over(files: Sequence[str], opening: dict[str, Any], work: Callable[[Stream], T]) -> list[T]:
    """`cli_files.over`, the exit code for later."""
    results, code = over(files, opening, work)
    _exit_later(code)
    return results


def _exit_later(code: int) -> None:
    meta = click.get_current_context().meta
    meta[_EXIT] = max(code, meta.get(_EXIT, 0))


# -- info -----------------------------------------------------------------------------------------------------------


@main.command(epilog=example("vmstate info guest.mig", "vmstate info --ram guest.mig", "vmstate info --json *.mig.zst"))
@_files
@json_option
@click.option("--ram", is_flag=True, help="Count the pages of each RAM block, by kind.")
@_opening
def info(files: tuple[str, ...], as_json: bool, ram: bool, opening: dict[str, Any]) -> None:
    """What a stream holds: machine type, sections, RAM blocks, where its bytes go; which releases can have written it.

    With --json and one FILE one object, with several a list of them.
    """
    from vmstate_tools.cli.info import show, summarize

    if not as_json:
        _exit_later(show(files, opening, ram=ram))
        return
    found = _over(files, opening, summarize)
    if found or len(files) > 1:
        print_json(found[0] if len(files) == 1 else found)


# -- fields ---------------------------------------------------------------------------------------------------------


@main.command(
    epilog=example(
        "vmstate fields guest.mig --section cpu --field 'env.gpr*'",
        "vmstate fields guest.mig --field 'env.spr[287]' --format json",
        "vmstate fields *.mig.zst --section cpu --format parquet -o cpu.parquet",
    )
)
@_files
@click.option("--section", metavar="S", help="Sections of this idstr, or idstr/instance_id; may hold * and ?.")
@click.option("--field", metavar="GLOB", help="Fields of this path; may hold * and ?.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv", "parquet"]), default="table")
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option("-o", "--output", "out", metavar="OUT", help="Write to this file.")
@click.option(
    "--fold",
    metavar="N",
    type=click.IntRange(0),
    help=f"Arrays of more than N values in one row of bytes; 0: never. Tables: {FOLD}, otherwise 0.",
)
@force_option
@_opening
def fields(
    files: tuple[str, ...],
    section: str | None,
    field: str | None,
    form: str,
    out: str | None,
    fold: int | None,
    force: bool,
    opening: dict[str, Any],
) -> None:
    """Every decoded field: section, path, type, offset, size, value.

    Values are numbers; bytes are hex digits. In tables numbers above 255 are hex and long bytes are cut. In parquet
    a value is a struct; pandas reads it after `import vmstate_tools.frames.dtypes`. Exit code 1: no field matched.
    """
    from vmstate_tools.cli.fields import matcher, show, wanted

    if form == "parquet" and out is None:
        raise click.UsageError("parquet goes to a file: name it with -o OUT")
    if form == "table" and out is not None:
        raise click.UsageError("-o takes --format json, csv or parquet")
    target = new_file(out, force)
    if form != "parquet":
        code = show(files, opening, form=form, section=section, field=field, fold=fold, target=target)
        _exit_later(code)
        return
    assert target is not None
    match = matcher(field) if field is not None else None
    _parquet(_over(files, opening, lambda stream: _frame(stream, wanted(stream, section), match, fold or None)), target)


def _frame(stream: Stream, sections: list[Section], match: Callable[[str], bool] | None, fold: int | None) -> Any:
    import pandas as pd

    frame = stream.fields_of(sections, fold=fold)
    if match is not None:
        frame = frame[frame["path"].map(match).astype(bool)].reset_index(drop=True)
    frame.insert(0, "file", pd.Series(stream.name, index=frame.index, dtype="category"))
    return frame


def _parquet(frames: list[Any], target: Path) -> None:
    import pandas as pd

    if frames and not any(len(frame) for frame in frames):
        complain("no field matches")
        _exit_later(1)
    if frames:
        pd.concat(frames, ignore_index=True).astype({"file": "category"}).to_parquet(target)


# -- cpu ------------------------------------------------------------------------------------------------------------


_accel = click.Choice(["tcg", "kvm"])


@main.command(
    epilog=example(
        "vmstate cpu guest.mig --explain", "vmstate cpu --json *.mig.zst", "vmstate cpu guest.mig --against 2.6.0"
    )
)
@_files
@json_option
@click.option("--against", metavar="RELEASE", help="Say which flags are new or gone against this release of QEMU.")
@click.option("--accel", type=_accel, default="tcg", show_default=True, help="What RELEASE would run the guest with.")
@click.option("--explain", is_flag=True, help="Say of each flag what it stands for.")
@_opening
def cpu(
    files: tuple[str, ...], as_json: bool, against: str | None, accel: str, explain: bool, opening: dict[str, Any]
) -> None:
    """The CPU's sanity-check words (of ppc), with flag names.

    The release is known where a manifest.csv lies beside the streams; the model from there, or by its PVR. --against
    compares with the words that model has there; a flag that RELEASE does not know is called unknown.
    """
    if against is not None:
        from vmstate_tools.facts.catalog import expect_release, resolve

        expect_release(against)
        against = resolve(against, nearest=True)
    rows = [row for rows in _over(files, opening, _cpu_rows) for row in rows]
    for row in rows if against is not None else []:
        row["against"] = _against(row, against or "", accel)
    for row in rows if explain else []:
        row["explained"] = _explained(row["flags"])
    if as_json:
        print_json(rows)
        return
    for row in rows:
        _print_cpu(row)


def _cpu_rows(stream: Stream) -> list[dict[str, Any]]:
    from vmstate_tools.facts import flags
    from vmstate_tools.frames.collection import manifest_rows
    from vmstate_tools.stream.cpu_words import cpu_rows

    manifest = manifest_rows([stream.name])
    told = manifest.iloc[0].to_dict() if len(manifest) else {}
    release = told.get("release") or None
    rows = []
    for words in cpu_rows(stream):
        instance = words.pop("section_instance")
        names: list[str] = []
        for word in ("insns_flags", "insns_flags2"):
            if words[word] is not None:
                names += flags.decode(word, words[word], release)
        rows.append(
            {
                "file": stream.name,
                "section_instance": instance,
                "release": release,
                "machine": stream.machine or told.get("machine") or None,
                "model": told.get("cpu") or _model(words["pvr"]),
                **words,
                "flags": names,
            }
        )
    return rows


def _against(row: dict[str, Any], release: str, accel: str) -> dict[str, Any] | None:
    """Names of flags that are new or gone, and of the new ones those unknown to the release."""
    from vmstate_tools.errors import CatalogError
    from vmstate_tools.facts import catalog, flags

    if row["insns_flags"] is None:
        return None
    try:
        models = [row["model"]] if row["model"] else [m.name for m in catalog.model_of_pvr(row["pvr"], release)]
        words = {catalog.words(model, release, accel, row["machine"]) for model in models}
        if len(words) != 1:
            raise CatalogError(f"QEMU {release} has no one CPU with this PVR")
        (there,) = words
    except CatalogError as err:
        complain(f"{row['file']}: cpu/{row['section_instance']}: {err}")
        _exit_later(2)
        return None
    found = flags.diff(there, row)
    names = {(word, flag.value) for word in flags.WORDS for flag in flags.known(word, release)}
    new = [(word, name) for word, (added, _) in found.items() for name in added]
    return {
        "release": release,
        "accel": accel,
        "new": [name for _, name in new],
        "gone": [name for _, removed in found.values() for name in removed],
        "unknown": [name for word, name in new if (word, flags.encode(word, [name])) not in names],
    }


def _model(pvr: int | None) -> str | None:
    """The CPU model with this PVR, if all releases that know one mean the same."""
    from vmstate_tools.facts.catalog import table

    names = {row["model"].lower(): row["model"] for row in table("models") if int(row["pvr"], 16) == pvr}
    return next(iter(names.values())) if len(names) == 1 else None


def _print_cpu(row: dict[str, Any]) -> None:
    say(f"{row['file']}: cpu/{row['section_instance']}")
    for name in ("release", "machine", "model"):
        if row[name]:
            say(f"  {name:<14}{row[name]}")
    for name in ("pvr", "msr_mask", "insns_flags", "insns_flags2", "nb_bats"):
        value = row[name]
        digits = 8 if name == "pvr" else 16
        shown = "not sent" if value is None else str(value) if name == "nb_bats" else f"0x{value:0{digits}x}"
        say(f"  {name:<14}{shown}")
    if row.get("explained"):
        say(*(line for flag in row["explained"] for line in _flag_lines(flag)))
    elif row["flags"]:
        say(*wrapped(", ".join(row["flags"])))
    if found := row.get("against"):
        say("", f"  against QEMU {found['release']} under {found['accel'].upper()}")
        new = [f"{name} (unknown there)" if name in found["unknown"] else name for name in found["new"]]
        say(*wrapped("new:  " + (", ".join(new) or "none")), *wrapped("gone: " + (", ".join(found["gone"]) or "none")))
    say()


def _explained(names: Iterable[str]) -> list[dict[str, str]]:
    """name, facility, meaning of each flag; a bit without a name has no more than what it is called."""
    from vmstate_tools.errors import CatalogError
    from vmstate_tools.facts import flags

    found = []
    for name in names:
        try:
            about = flags.describe(name)
            found.append({"name": name, "facility": about.facility, "meaning": about.meaning})
        except CatalogError:
            found.append({"name": name, "facility": "", "meaning": ""})
    return found


def _flag_lines(flag: dict[str, str]) -> list[str]:
    return wrapped(f"{flag['name']:<22} {flag['facility']}: {flag['meaning']}" if flag["meaning"] else flag["name"])


@main.command(epilog=example("vmstate flag PPC_CILDST", "vmstate flag --json PPC2_TM MSR_TM"))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
def flag(names: tuple[str, ...], as_json: bool) -> None:
    """What a flag of the ppc CPU stands for: facility, meaning, and the releases of QEMU that have it."""
    from vmstate_tools.facts import flags

    rows = [flags.describe(name)._asdict() for name in names]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        say(*_flag_lines(row))
        bit, until = row["value"].bit_length() - 1, row["until"] or "today"
        say(f"  {row['word']}, bit {bit}, since {row['since']}, until {until}")


# -- history --------------------------------------------------------------------------------------------------------


@main.command(
    epilog=example(
        "vmstate history --cpu POWER8 --from 2.6 --until 2.8",
        "vmstate history --cpu POWER7_v2.3 --accel tcg --machine pseries-2.6 --json",
        "vmstate history --from 1.6",
    )
)
@click.option("--cpu", "name", metavar="FAMILY", help="A family of CPUs, or that of a model or alias. Without it: all.")
@click.option("--from", "since", metavar="R", help="The first release.")
@click.option("--until", metavar="R", help="The last release.")
@click.option("--accel", type=_accel, help="The words a CPU has under this accelerator, not those of its class.")
@click.option("--machine", metavar="M", help="The words that streams of this machine type carry (--accel: tcg).")
@json_option
def history(
    name: str | None, since: str | None, until: str | None, accel: str | None, machine: str | None, as_json: bool
) -> None:
    """How a CPU family's words changed, release by release, and the commits that changed them.

    Releases x.y.0. "-": a stream does not carry the word. Without --cpu only what changed is shown; --json has all.
    """
    from vmstate_tools.facts import catalog
    from vmstate_tools.facts.flags import release_key

    low = release_key(since) if since else (0,)
    high = release_key(until) if until else (1 << 30,)
    names = [name] if name else sorted({row["family"] for row in catalog.table("families")}, key=str.lower)
    document = []
    for family in names:
        try:
            frame = catalog.history(family, accel, machine, sent=machine is not None)
        except VmstateError:
            if name:
                raise
            continue  # not on this machine type
        frame = frame[[low <= release_key(release) <= high for release in frame["release"]]]
        rows = [
            {word: None if _missing(value) else value for word, value in zip(frame.columns, row, strict=True)}
            for row in zip(*(frame[column].tolist() for column in frame), strict=True)
        ]
        # A family of one release may have the name of another's model: say it once.
        rows = [row for row in rows if name or row["family"] == family]
        document += [{key: row[key] for key in _HISTORY} for row in rows]
        if not as_json:
            _print_history(rows, words=name is not None)
    if as_json:
        print_json(document)
    elif not document:
        complain("no release matches")
    if not document:
        _exit_later(1)


_HISTORY = ("family", "release", "insns_flags", "insns_flags2", "msr_mask", "added", "removed", "commits")


def _print_history(rows: list[dict[str, Any]], words: bool) -> None:
    changed = [row for row in rows if row["added"] or row["removed"] or row["commits"]]
    if rows and (words or changed):
        say(rows[-1]["family"])
    if rows and words:
        columns = ("msr_mask", "insns_flags", "insns_flags2")
        print_table(
            ["=release", "=date", *(f"={word}" for word in columns)],
            (
                (r["release"], f"{r['date']:%Y-%m-%d}", *("-" if r[w] is None else f"{r[w]:#x}" for w in columns))
                for r in rows
            ),
        )
        say()
    for row in changed:
        say(f"  {row['release']}")
        for sign, names in (("+", row["added"]), ("-", row["removed"])):
            if names:
                say(*(f"  {line}" for line in wrapped(f"{sign} {', '.join(names)}")))
        for commit in row["commits"]:
            say(f"    {commit['commit'][:10]} {commit['date']} {commit['subject']}")
    if changed:
        say()


# -- catalog --------------------------------------------------------------------------------------------------------


@main.group(
    "catalog",
    epilog=example("vmstate catalog build --qemu-git ~/src/qemu -o data/catalog"),
)
def catalog_group() -> None:
    """What each release of QEMU says of its ppc CPUs."""


@catalog_group.command(
    epilog=example("vmstate catalog build --qemu-git ~/src/qemu --qemu-git ~/src/qemu-old -o data/catalog")
)
@click.option(
    "--qemu-git",
    "repositories",
    metavar="DIR",
    multiple=True,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A clone of QEMU; may be given several times, the first that has a release is read for it.",
)
@click.option(
    "--qemu-source",
    "trees",
    metavar="DIR|TARBALL",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="The source of a release that no clone has; what changed in it has no commit. May be given several times.",
)
@click.option("-o", "--output", "out", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path))
def build(repositories: tuple[Path, ...], trees: tuple[Path, ...], out: Path) -> None:
    """Read clones and released source trees of QEMU, release by release, and write what they say as CSV files.

    Nothing is checked out. Files of the same names in the output directory are replaced.
    """
    from vmstate_tools.qemu_source import build as write

    write(repositories, out, trees)


# -- diff -----------------------------------------------------------------------------------------------------------


@main.command(epilog=example("vmstate diff old.mig new.mig", "vmstate diff --ram --json old.mig new.mig"))
@click.argument("a")
@click.argument("b")
@json_option
@click.option("--ram", is_flag=True, help="Compare the guest's memory too, page by page.")
@_opening
def diff(a: str, b: str, as_json: bool, ram: bool, opening: dict[str, Any]) -> None:
    """Where two streams differ: machine type, sections, versions, subsections, fields, values.

    A and B may also both be what -dump-vmstate printed: then, where the descriptions differ, and whether a stream of A
    breaks on B for it. Exit code 0: nowhere; 1: they differ.
    """
    from vmstate_tools.analysis.differences import diff as compare
    from vmstate_tools.vmstate.dump import is_dump

    if is_dump(a) and is_dump(b):
        from vmstate_tools.vmstate.dump import diff_dumps

        frame = diff_dumps(a, b)
    else:
        with open_file(a, opening) as one, open_file(b, opening) as two:
            frame = compare(one, two, ram=ram)
    rows = [
        {
            name: (v.split(", ") if v else []) if name == "flags" else None if _missing(v) else v
            for name, v in zip(frame.columns, row, strict=True)
        }
        for row in zip(*(frame[name].tolist() for name in frame), strict=True)
    ]
    if as_json:
        print_json(rows)
    else:
        say(f"a: {a}", f"b: {b}", "" if rows else "no difference")
        if rows and "breaks" in frame:
            for row in rows:
                where = " ".join(str(row[c]) for c in ("section", "vmsd", "field") if row[c])
                values = f"{row['a']} → {row['b']}"
                say(f"{where}: {row['kind']}: {values}{' (breaks)' if row['breaks'] else ''}")
        elif rows:
            _print_diff(rows)
    if rows:
        _exit_later(1)


def _missing(value: Any) -> bool:
    import pandas as pd

    return value is None or value is pd.NA


def _print_diff(rows: list[dict[str, Any]]) -> None:
    from vmstate_tools.vmstate.layout import format_value

    def cell(value: Any) -> str:
        text = format_value(value)
        return text if len(text) <= 20 else text[:19] + "…"

    print_table(
        ["section", "path", "kind", "=a", "=b"],
        (
            (
                row["section"] if row["instance_id"] is None else f"{row['section']}/{row['instance_id']}",
                row["path"] or row["vmsd"],
                row["kind"] if row.get("pages") is None else f"{row['pages']} pages",
                cell(row["a"]),
                cell(row["b"]),
            )
            for row in rows
        ),
    )
    for row in rows:
        if row["flags"]:
            say("", f"{row['section']}/{row['instance_id']} {row['path']}", *wrapped(", ".join(row["flags"])))


# -- ram ------------------------------------------------------------------------------------------------------------


@main.command(epilog=example("vmstate ram guest.mig --block pc.ram -o pc.ram", "vmstate ram guest.mig -o memory/"))
@click.argument("file")
@click.option("--block", metavar="B", help="The RAM block's name; not needed where there is only one.")
@click.option("-o", "--output", "out", required=True, metavar="OUT", help="A file, or a directory to put it into.")
@force_option
@_opening
def ram(file: str, block: str | None, out: str, force: bool, opening: dict[str, Any]) -> None:
    """Write the guest's memory of one RAM block to a file, with holes where it is zero.

    In a directory the file is called as the block, with _ for all but letters, digits, - and dots inside.
    """
    with open_file(file, opening) as stream:
        names = [b.name for b in stream.ram.block_list]
        if block is None and len(names) == 1:
            block = names[0]
        if block is None or block not in names:
            what = "name a RAM block with --block" if block is None else f"no RAM block {block!r}"
            raise VmstateError(f"{what}; {file} has {', '.join(names) or 'none'}")
        path = Path(out, file_name(block)) if Path(out).is_dir() else Path(out)
        target = new_file(str(path), force)
        assert target is not None
        written = stream.ram.extract(block, target, overwrite=force, progress=sys.stderr.isatty())
        counts = stream.ram.page_counts()
        if not any(column[names.index(block)] for kind, column in counts.items() if kind not in ("block", "bytes")):
            complain(f"warning: the stream has no page of {block}: what the guest has there is not known")
    complain(f"{target}: {written:,} bytes of {block} are not zero")


def file_name(block: str) -> str:
    """A RAM block's name as the name of a file: it stays in its directory, and is not hidden."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", block).lstrip(".") or "_"


main.add_command(cli_compat.check)
main.add_command(cli_compat.matrix)
main.add_command(cli_compat.lint)
main.add_command(cli_report.report)
main.add_command(cli_qemu.capture)
main.add_command(cli_qemu.try_)
main.add_command(cli_qemu.rewrite)


if __name__ == "__main__":
    main()
