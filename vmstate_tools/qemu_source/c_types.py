"""Types of C as the reader has them, and the types that QEMU's source leaves to the host: 64-bit Linux on x86-64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vmstate_tools.qemu_source.expressions import Tree
    from vmstate_tools.qemu_source.program import Program, Scope

#: Size in bytes (and alignment, where it is another) of types that QEMU's source does not define.
HOST: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("char", "bool", "_Bool", "int8_t", "uint8_t", "gchar", "guchar", "guint8", "gint8"), (1, 1)),
    **dict.fromkeys(("short", "int16_t", "uint16_t", "sa_family_t", "guint16", "mode16_t"), (2, 2)),
    **dict.fromkeys(
        ("int", "unsigned", "float", "int32_t", "uint32_t", "gint", "guint", "gboolean", "pid_t", "uid_t", "gid_t",
         "mode_t", "socklen_t", "guint32", "gint32", "GQuark", "pthread_once_t", "pthread_key_t", "__u32", "__s32",
         "uint_fast8_t"),
        (4, 4),
    ),
    **dict.fromkeys(
        ("long", "double", "int64_t", "uint64_t", "size_t", "ssize_t", "intptr_t", "uintptr_t", "off_t", "time_t",
         "ptrdiff_t", "gsize", "gpointer", "guint64", "gint64", "pthread_t", "intmax_t", "uintmax_t", "dev_t", "ino_t",
         "clock_t", "uint_fast16_t", "uint_fast32_t", "uint_fast64_t", "int_fast16_t", "int_fast32_t", "GMutex",
         "suseconds_t", "__u64", "__s64", "gulong", "pixman_image_t*"),
        (8, 8),
    ),
    "__u8": (1, 1), "__s8": (1, 1), "__u16": (2, 2), "__s16": (2, 2), "__le16": (2, 2), "__le32": (4, 4),
    "__le64": (8, 8), "__be16": (2, 2), "__be32": (4, 4), "__be64": (8, 8), "int_fast8_t": (1, 1),
    "__int128_t": (16, 16), "__uint128_t": (16, 16), "__int128": (16, 16),
    "pthread_mutex_t": (40, 8), "pthread_cond_t": (48, 8), "pthread_rwlock_t": (56, 8), "sem_t": (32, 8),
    "GCond": (16, 8), "GRWLock": (16, 8), "GQueue": (24, 8), "GList": (24, 8), "GSList": (16, 8), "GPollFD": (8, 4),
    "GSource": (96, 8), "GString": (24, 8), "sigjmp_buf": (200, 8), "jmp_buf": (200, 8), "va_list": (24, 8),
    "sigset_t": (128, 8), "pixman_color_t": (8, 2), "pixman_region16_t": (16, 8), "pixman_format_code_t": (4, 4),
    "struct timeval": (16, 8), "struct timespec": (16, 8), "struct tm": (56, 8), "struct iovec": (16, 8),
    "struct sockaddr": (16, 2), "struct sockaddr_in": (16, 4), "struct sockaddr_in6": (28, 4),
    "struct sockaddr_un": (110, 2), "struct sockaddr_storage": (128, 8), "struct in_addr": (4, 4),
    "struct in6_addr": (16, 4), "struct termios": (60, 4), "struct stat": (144, 8), "struct sigaction": (152, 8),
    "struct ibv_qp_cap": (20, 4),
    # spice-protocol's qxl_dev.h, usbredir's usbredirproto.h
    "QXLMemSlot": (16, 1), "QXLSurfaceCreate": (40, 1),
    "struct usb_redir_device_connect_header": (10, 1), "struct usb_redir_interface_info_header": (132, 4),
}  # fmt: skip
#: Offsets of members of the host's structs that QEMU's source asks for.
HOST_MEMBERS = {("struct iovec", "iov_base"): 0, ("struct iovec", "iov_len"): 8}
SIGNED = frozenset(
    [
        "char",
        "short",
        "int",
        "long",
        "int8_t",
        "int16_t",
        "int32_t",
        "int64_t",
        "ssize_t",
        "intptr_t",
        "off_t",
        "time_t",
        "gint",
    ]
)


@dataclass(eq=False)
class Type:
    """A Type is a type of C.

    `kind` is number, pointer, array, struct, union, function or unknown. A struct's members are laid out when its
    size or one of them is asked for.
    """

    kind: str
    name: str = ""
    size: int | None = None
    align: int = 1
    of: Type | None = None
    count: int | None = None
    signed: bool = False
    body: tuple[Scope, list[str]] | None = None
    members: dict[str, Member] | None = None
    busy: bool = False


@dataclass(eq=False)
class Member:
    """A member of a struct: its type and its offset in bytes (None where a type before it has no known size)."""

    type: Type
    offset: int | None
    bits: int | None = None


POINTER_SIZE = 8
UNKNOWN = Type("unknown")
VOID = Type("number", "void", 1, 1)


def pointer(of: Type) -> Type:
    """Returns the type of a pointer to a type."""
    return Type("pointer", of.name, POINTER_SIZE, POINTER_SIZE, of)


class Resolver(Protocol):
    """A Resolver is what declarations and constants ask of their program: `layout.Layout` answers."""

    program: Program

    def integer(self, tokens: list[str], scope: Scope) -> int:
        """Evaluates tokens to an integer."""

    def leaf(self, tree: Tree, scope: Scope) -> int:
        """Evaluates what depends on declarations."""

    def named(self, name: str, scope: Scope) -> Type:
        """Returns the type a name stands for."""

    def is_type(self, name: str, scope: Scope) -> bool:
        """Tells whether a name is a type's."""

    def type_of(self, tree: Tree, scope: Scope) -> Type:
        """Returns the type of an expression."""

    def type_of_tokens(self, tokens: list[str], scope: Scope) -> Type:
        """Reads a type name."""

    def known_size(self, type_: Type) -> int | None:
        """Returns the size in bytes, None where it is not known."""

    def alignment(self, type_: Type) -> int:
        """Returns the alignment in bytes."""
